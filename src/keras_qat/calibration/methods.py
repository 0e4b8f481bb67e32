"""Observers and methods: what is remembered of a tensor during calibration, and the range that is chosen in the end.

An observer is three pure functions over explicit state: `init` creates the state, `update` takes in a batch, and
`finalize` chooses the range. Two observers need only the largest magnitude m of each batch:

`minmax`      the largest magnitude of all batches. Nothing saturates, but one outlier costs all others precision.
`ema`         a moving average a ← a + 0.1 (m - a), starting at the first m (Jacob et al. 2017,
              https://arxiv.org/abs/1712.05877, section 3.1). The only observer for which the order of batches matters.

The others keep a histogram and apply a method to it, a function (histogram, integers) → amax:

`percentile`  the magnitude that 99.99% of the numbers do not exceed (Wu et al. 2020, https://arxiv.org/abs/2004.09602).
`mse`         the amax with the least squared error of rounding and clipping together, between 5% and 100% of the
              largest magnitude (Sung et al. 2015, https://arxiv.org/abs/1511.06488).
`entropy`     the amax whose grid keeps most information: the least Kullback-Leibler divergence (S. Migacz, "8-bit
              inference with TensorRT", GTC 2017, slides 32 to 38).
`auto`        of all these and the largest magnitude, the one with the least squared error.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from keras_qat.calibration.histogram import Histogram, merge
from keras_qat.errors import UserError
from keras_qat.types import QuantSpec

EMA_RATE = 0.1

PERCENTILE = 99.99

_MSE_CANDIDATES = np.linspace(0.05, 1.0, 39)
_STEP = _MSE_CANDIDATES[1] - _MSE_CANDIDATES[0]
_FINER = np.linspace(-_STEP, _STEP, 17)
_BINS_PER_STEP = 8

_ENTROPY_CANDIDATES = 128
_BINS_PER_LEVEL = 16
_FARTHEST = 16


class Choice(NamedTuple):
    """A range, and the method that chose it."""

    amax: float
    method: str


@dataclass(frozen=True)
class Observer:
    """One way to observe a tensor.

    Args:
        init: () → the state before the first batch.
        update: (state, the batch's histogram) → the next state.
        finalize: (state, the integers) → the range.
        counts: Whether `update` needs the counts of the histogram. Without them only its `amax` is computed, which is
            cheaper.
    """

    init: Callable[[], Any]
    update: Callable[[Any, Histogram], Any]
    finalize: Callable[[Any, QuantSpec], Choice]
    counts: bool


Method = Callable[[Histogram, QuantSpec], float]
"""(histogram of the magnitudes, the integers) → amax."""


def minmax(histogram: Histogram, spec: QuantSpec) -> float:  # noqa: ARG001
    """Return the largest magnitude."""
    return histogram.amax


def percentile(histogram: Histogram, spec: QuantSpec) -> float:  # noqa: ARG001
    """Return the 99.99th percentile, interpolated inside its bin."""
    amax = float(histogram.quantiles(np.array([PERCENTILE / 100]))[0])
    # If nearly all numbers are 0, the percentile is 0 too, and the few other numbers would all saturate.
    return amax if amax > np.finfo(np.float32).tiny else histogram.amax


def mse(histogram: Histogram, spec: QuantSpec) -> float:
    """Return the amax with the least squared error, searched in steps of 2.5% and then of 0.3%; 0 for all zeros."""
    if histogram.amax == 0:
        return 0.0
    share = _MSE_CANDIDATES[np.argmin(squared_errors(histogram, _MSE_CANDIDATES * histogram.amax, spec))]
    finer = np.clip(share + _FINER, _MSE_CANDIDATES[0], 1.0) * histogram.amax
    return float(finer[np.argmin(squared_errors(histogram, finer, spec))])


def squared_errors(histogram: Histogram, amax: np.ndarray, spec: QuantSpec) -> np.ndarray:
    """Return the squared error Σ (x - s · min(round(x / s), q_max))², s = a / q_max, of each candidate a.

    The magnitudes are counted again in bins of equal width, eight to a step. Over a bin of evenly spread numbers the
    sum is n (G(upper) - G(lower)) / (upper - lower), with the integral

        G(t) = ∫₀ᵗ (x - s q(x))² dx = q s³ / 12 + (t - q s)³ / 3,    q = min(round(t / s), q_max)

    since every whole step adds s³ / 12.

    Args:
        histogram: The magnitudes, not all of them 0.
        amax: Candidates a > 0, shape (k,).
        spec: The integers. The extra negative step of a signed grid is ignored.

    Returns:
        Float64, shape (k,).
    """
    edges = np.linspace(0.0, histogram.amax, _BINS_PER_STEP * (spec.q_max + 1) + 1)
    n = histogram.rebinned(edges)
    s = (amax / spec.q_max)[:, np.newaxis]
    q = np.minimum(np.round(edges / s), spec.q_max)
    integral = q * s**3 / 12 + (edges - q * s) ** 3 / 3
    return np.asarray(np.diff(integral, axis=1) @ n / edges[1])


def entropy(histogram: Histogram, spec: QuantSpec) -> float:
    """Return the amax with the least Kullback-Leibler divergence; 0 for all zeros.

    The magnitudes are counted in bins of equal width. A candidate is the first i of them, with

        P  the counts of the first i bins, to whose last occupied bin all numbers beyond are added (they saturate);
        Q  the same counts without the numbers beyond, as the grid represents them: merged into as many levels as the
           grid has, with the count of each level spread evenly over its occupied bins.

    The i with the least KL(P ‖ Q) = Σ p log(p / q) is chosen, and amax is the upper edge of its last bin. The bins end
    at 16 times the magnitude that 99.9% of the numbers do not exceed; with an outlier farther out, all other numbers
    would share a few bins.
    """
    if histogram.amax == 0:
        return 0.0
    levels = spec.q_max + 1
    bins = levels * _BINS_PER_LEVEL
    p999 = float(histogram.quantiles(np.array([0.999]))[0])
    top = min(histogram.amax, _FARTHEST * p999) if p999 > np.finfo(np.float32).tiny else histogram.amax
    counts = histogram.rebinned(np.append(np.linspace(0.0, top, bins + 1), np.inf))
    beyond, counts = counts[-1], counts[:-1]
    # Zeros are exact in any range, but after a ReLU there are so many that they alone would decide. The first bin is
    # therefore given the count of the second.
    counts[0] = counts[1]
    if not counts.any():
        return top
    candidates = np.unique(np.linspace(levels, bins, _ENTROPY_CANDIDATES).astype(int))
    divergences = [_divergence(counts, beyond, int(i), levels) for i in candidates]
    return float(candidates[np.argmin(divergences)] / bins * top)


def _divergence(counts: np.ndarray, beyond: float, i: int, levels: int) -> float:
    """Return KL(P ‖ Q) of keeping the first `i` bins; infinity if they are all empty."""
    kept = counts[:i]
    p = kept.copy()
    occupied = kept > 0
    if not occupied.any():
        return float("inf")
    p[np.flatnonzero(occupied)[-1]] += counts[i:].sum() + beyond
    starts = np.arange(levels) * i // levels
    level_of = np.searchsorted(starts, np.arange(i), side="right") - 1
    share = np.add.reduceat(kept, starts) / np.maximum(np.add.reduceat(occupied, starts, dtype=np.int64), 1)
    q = np.where(occupied, share[level_of], 0.0)
    p, q = p / p.sum(), q / q.sum()
    shown = p > 0
    return float(np.sum(p[shown] * np.log(p[shown] / q[shown])))


METHODS: Mapping[str, Method] = {"minmax": minmax, "percentile": percentile, "entropy": entropy, "mse": mse}


def best_of_all(histogram: Histogram, spec: QuantSpec) -> Choice:
    """Return the range with the least squared error among those of all methods."""
    if histogram.amax == 0:
        return Choice(0.0, "minmax")
    choices = [Choice(method(histogram, spec), name) for name, method in METHODS.items()]
    errors = squared_errors(histogram, np.array([choice.amax for choice in choices]), spec)
    return choices[int(np.argmin(errors))]


def _largest(state: float, batch: Histogram) -> float:
    return max(state, batch.amax)


def _moving_average(state: float | None, batch: Histogram) -> float:
    return batch.amax if state is None else state + EMA_RATE * (batch.amax - state)


def _of_magnitudes(name: str, init: Callable[[], Any], update: Callable[[Any, Histogram], float]) -> Observer:
    """Return an observer whose state is its range."""
    return Observer(init, update, lambda state, _: Choice(state or 0.0, name), counts=False)


def _of_histogram(name: str) -> Observer:
    """Return an observer that merges histograms and applies a method to them."""
    return Observer(Histogram.empty, merge, lambda state, spec: Choice(METHODS[name](state, spec), name), counts=True)


OBSERVERS: dict[str, Observer] = {
    "minmax": _of_magnitudes("minmax", float, _largest),
    "ema": _of_magnitudes("ema", lambda: None, _moving_average),
    **{name: _of_histogram(name) for name in METHODS if name != "minmax"},
    "auto": Observer(Histogram.empty, merge, best_of_all, counts=True),
}


def register_observer(name: str, observer: Observer) -> None:
    """Make an observer available under a name, as in `calibrate(method=name)`.

    Raises:
        UserError: If there is an observer of that name.

    Example:
        >>> observer = Observer(float, _largest, lambda state, spec: Choice(0.9 * state, "nine-tenths"), counts=False)
        >>> register_observer("nine-tenths", observer)
        >>> find_observer("nine-tenths").finalize(2.0, QuantSpec())
        Choice(amax=1.8, method='nine-tenths')
        >>> del OBSERVERS["nine-tenths"]
    """
    if name in OBSERVERS:
        raise UserError(f"There is an observer of that name. Received: {name!r}. Choose a name of your own.")
    OBSERVERS[name] = observer


def find_observer(method: str) -> Observer:
    """Return the observer of that name.

    Raises:
        UserError: If there is no such observer.

    Example:
        >>> import numpy as np
        >>> observer = find_observer("ema")
        >>> state = observer.init()
        >>> for batch in (np.array([1.0]), np.array([3.0])):
        ...     state = observer.update(state, Histogram.of(batch))
        >>> observer.finalize(state, QuantSpec())
        Choice(amax=1.2, method='ema')
    """
    if method not in OBSERVERS:
        raise UserError(f"Unknown calibration method. Received: {method!r}. Choose one of: {', '.join(OBSERVERS)}.")
    return OBSERVERS[method]
