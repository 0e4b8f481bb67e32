"""Histogram → a few numbers that say what a tensor's magnitudes look like."""

import numpy as np

from keras_qat.calibration.histogram import Histogram

_PERCENTILES = (50.0, 99.0, 99.9, 99.99)


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
