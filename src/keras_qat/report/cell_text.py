"""Figures as a table shows them."""

from keras_qat.evaluation import Latency

NOTHING = "–"
"""What stands for a figure that isn't known."""


def percent_text(share: float | None) -> str:
    """A share from 0 to 1 as a table shows it.

    Example:
        >>> percent_text(0.95555), percent_text(None)
        ('95.56%', '–')
    """
    return NOTHING if share is None else f"{100 * share:.2f}%"


def number_text(number: float | None) -> str:
    """An error or another number without a unit as a table shows it.

    Example:
        >>> number_text(0.012345), number_text(None)
        ('0.0123', '–')
    """
    return NOTHING if number is None else f"{number:.3g}"


def decibel_text(number: float | None) -> str:
    """An SQNR as a table shows it; 200 dB are equal numbers.

    Example:
        >>> decibel_text(35.24), decibel_text(None)
        ('35.2 dB', '–')
    """
    return NOTHING if number is None else f"{number:.1f} dB"


def latency_text(latency: Latency) -> str:
    """A latency as a table shows it."""
    return f"{latency.median_ms:.2f} ms (p90 {latency.p90_ms:.2f})"
