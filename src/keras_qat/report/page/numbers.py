"""Numbers as the page's scripts get them, and as its text says them."""

import math


def drawable(value: float | None) -> float | None:
    """The number, or `None` for one that no axis has a place for.

    Example:
        >>> drawable(40.0), drawable(float("inf")), drawable(None)
        (40.0, None, None)
    """
    return value if value is not None and math.isfinite(value) else None


def db_text(value: float | None) -> str:
    """An SQNR as a table shows it.

    Example:
        >>> db_text(40.04), db_text(float("inf")), db_text(None)
        ('40.0 dB', '∞ dB', '–')
    """
    if value is None:
        return "–"
    return f"{value:.1f} dB".replace("inf", "∞").replace("-", "−")


def percent_text(share: float) -> str:
    """A share from 0 to 1.

    Example:
        >>> percent_text(0.95555)
        '95.56%'
    """
    return f"{100 * share:.2f}%"
