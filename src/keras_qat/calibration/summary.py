"""Histogram → the numbers that say, and the bars that show, what a tensor's magnitudes look like."""

import numpy as np

from keras_qat.calibration.histogram import Histogram

_PERCENTILES = (50.0, 99.0, 99.9, 99.99)

BARS = 64
"""Enough for the eye; the bins of the histogram itself are thousands."""


def summarize(histogram: Histogram) -> dict[str, float]:
    """The percentiles of the magnitudes, interpolated inside their bins, and the largest magnitude exactly.

    Args:
        histogram: of the magnitudes.

    Returns:
        {"p50": …, "p99": …, "p99.9": …, "p99.99": …, "max": …}; all 0 for a histogram of nothing.

    Example:
        >>> summarize(Histogram.of(np.arange(1000) / 1000))
        {'p50': 0.49..., 'p99': 0.98..., 'p99.9': 0.99..., 'p99.99': 0.99..., 'max': 0.99...}
    """
    quantiles = histogram.quantiles(np.array(_PERCENTILES) / 100)
    return {**{f"p{p:g}": float(x) for p, x in zip(_PERCENTILES, quantiles, strict=True)}, "max": histogram.amax}


def bars(histogram: Histogram) -> tuple[float, ...]:
    """The shares of the magnitudes in equal bins from 0 to the largest.

    Args:
        histogram: of the magnitudes.

    Returns:
        `BARS` numbers that add up to 1; all 0 for a histogram of nothing or of zeros.

    Example:
        >>> shown = bars(Histogram.of(np.arange(1, 641) / 10))
        >>> len(shown), sum(shown), shown[1]
        (64, 1.0, 0.015625)
    """
    if histogram.amax == 0:
        return (0.0,) * BARS
    counts = histogram.rebinned(np.linspace(0.0, histogram.amax, BARS + 1))
    return tuple((counts / counts.sum()).tolist())
