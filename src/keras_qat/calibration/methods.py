"""Histogram → amax: the calibration methods, by name.

`minmax`      the largest magnitude seen. Nothing saturates; one outlier costs every other number precision.
`percentile`  the magnitude that 99.99% of the numbers don't exceed (Wu et al. 2020, https://arxiv.org/abs/2004.09602).
`mse`         the amax with the least squared error of quantization, clipping and rounding together, over 200 candidates
              between 5% and 100% of the largest magnitude (Sung et al. 2015, https://arxiv.org/abs/1511.06488).
"""

from collections.abc import Callable

import numpy as np

from keras_qat.calibration.histogram import Histogram
from keras_qat.errors import UserError
from keras_qat.types import QuantSpec

Method = Callable[[Histogram, QuantSpec], float]
"""(histogram of the magnitudes, the integers) → amax."""

PERCENTILE = 99.99

_CANDIDATES = np.linspace(0.05, 1.0, 200)


def minmax(histogram: Histogram, spec: QuantSpec) -> float:  # noqa: ARG001
    """The largest magnitude."""
    return histogram.amax


def percentile(histogram: Histogram, spec: QuantSpec) -> float:  # noqa: ARG001
    """The upper edge of the bin that holds the 99.99th percentile."""
    cumulative = np.cumsum(histogram.counts)
    index = int(np.searchsorted(cumulative, cumulative[-1] * PERCENTILE / 100))
    return min((index + 1) * histogram.width, histogram.amax)


def mse(histogram: Histogram, spec: QuantSpec) -> float:
    """The candidate amax a that minimises Σ n(x) · (x - s · min(round(x / s), q_max))², s = a / q_max.

    Args:
        histogram: counts n of the magnitudes x.
        spec: the integers; a signed grid's one extra negative step is left out of account.
    """
    if histogram.amax == 0:
        return 0.0
    occupied = histogram.counts > 0
    n, x = histogram.counts[occupied].astype(np.float64), histogram.centres[occupied]
    candidates = _CANDIDATES * histogram.amax
    s = (candidates / spec.q_max)[:, np.newaxis]
    errors = (n * (x - s * np.minimum(np.round(x / s), spec.q_max)) ** 2).sum(axis=1)
    return float(candidates[np.argmin(errors)])


METHODS: dict[str, Method] = {"minmax": minmax, "percentile": percentile, "mse": mse}


def find_method(name: str) -> Method:
    """The calibration method of that name.

    Raises:
        UserError: no such method.
    """
    if name not in METHODS:
        raise UserError(f"Unknown calibration method. Received: {name!r}. Choose one of: {', '.join(METHODS)}.")
    return METHODS[name]
