"""Histogram → amax: how a range is chosen once all numbers are counted.

`percentile`  the magnitude that 99.99% of the numbers don't exceed (Wu et al. 2020, https://arxiv.org/abs/2004.09602).
`mse`         the amax with the least squared error of quantization, clipping and rounding together, between 5% and 100%
              of the largest magnitude (Sung et al. 2015, https://arxiv.org/abs/1511.06488).
`entropy`     the amax whose grid keeps most of the information: the least Kullback-Leibler divergence (its own file).
`auto`        of all these and the largest magnitude, the one with the least squared error.
"""

from collections.abc import Callable, Mapping

import numpy as np

from keras_qat.calibration.entropy import entropy
from keras_qat.calibration.histogram import Histogram
from keras_qat.types import QuantSpec

Method = Callable[[Histogram, QuantSpec], float]
"""(histogram of the magnitudes, the integers) → amax."""

PERCENTILE = 99.99

_CANDIDATES = np.linspace(0.05, 1.0, 39)
_STEP = _CANDIDATES[1] - _CANDIDATES[0]
_FINER = np.linspace(-_STEP, _STEP, 17)
_BINS_PER_STEP = 8


def minmax(histogram: Histogram, spec: QuantSpec) -> float:  # noqa: ARG001
    """The largest magnitude."""
    return histogram.amax


def percentile(histogram: Histogram, spec: QuantSpec) -> float:  # noqa: ARG001
    """The 99.99th percentile, interpolated inside its bin."""
    found = float(histogram.quantiles(np.array([PERCENTILE / 100]))[0])
    # Where nearly all numbers are 0, the few others are all there is to keep.
    return found if found > np.finfo(np.float32).tiny else histogram.amax


def mse(histogram: Histogram, spec: QuantSpec) -> float:
    """The candidate with the least squared error, sought in steps of 2.5%, then of 0.3%; 0 where all numbers are 0."""
    if histogram.amax == 0:
        return 0.0
    share = _CANDIDATES[np.argmin(squared_errors(histogram, _CANDIDATES * histogram.amax, spec))]
    finer = np.clip(share + _FINER, _CANDIDATES[0], 1.0) * histogram.amax
    return float(finer[np.argmin(squared_errors(histogram, finer, spec))])


def squared_errors(histogram: Histogram, amax: np.ndarray, spec: QuantSpec) -> np.ndarray:
    """The sum of (x - s · min(round(x / s), q_max))² over all numbers x, with s = a / q_max, for each candidate a.

    The magnitudes are counted again in bins of equal width, eight to a step. Over a bin of evenly spread numbers the
    sum is n (G(upper) - G(lower)) / (upper - lower), with the integral

        G(t) = ∫₀ᵗ (x - s q(x))² dx = q s³ / 12 + (t - q s)³ / 3,    q = min(round(t / s), q_max)

    since every whole step adds s³ / 12.

    Args:
        histogram: of the magnitudes, not all 0.
        amax: candidates a > 0, shape (k,).
        spec: the integers; a signed grid's one extra negative step is left out of account.

    Returns:
        Float64, shape (k,).
    """
    edges = np.linspace(0.0, histogram.amax, _BINS_PER_STEP * (spec.q_max + 1) + 1)
    n = histogram.rebinned(edges)
    s = (amax / spec.q_max)[:, np.newaxis]
    q = np.minimum(np.round(edges / s), spec.q_max)
    integral = q * s**3 / 12 + (edges - q * s) ** 3 / 3
    return np.asarray(np.diff(integral, axis=1) @ n / edges[1])


METHODS: Mapping[str, Method] = {"minmax": minmax, "percentile": percentile, "entropy": entropy, "mse": mse}


def best_of_all(histogram: Histogram, spec: QuantSpec) -> tuple[float, str]:
    """The range with the least squared error among those of all methods, and the name of its method."""
    if histogram.amax == 0:
        return 0.0, "minmax"
    chosen = {name: method(histogram, spec) for name, method in METHODS.items()}
    errors = squared_errors(histogram, np.array(list(chosen.values())), spec)
    name = list(chosen)[int(np.argmin(errors))]
    return chosen[name], name
