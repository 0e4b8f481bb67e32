"""The range that keeps most information (S. Migacz, "8-bit inference with TensorRT", GTC 2017, slides 32 to 38).

The magnitudes are counted in bins of equal width. For each candidate, the first i bins:

    P  the counts of the first i bins, all that lies beyond added to the last of them that isn't empty (it saturates);
    Q  the same counts without what lies beyond, as the grid shows them: merged into as many levels as the grid has,
       each level's count spread evenly over those of its bins that aren't empty;

and the i with the least KL(P ‖ Q) = Σ p log(p / q) wins; amax is the upper edge of its last bin. The bins end at 16
times what 99.9% of the numbers don't exceed: with an outlier farther out all others would share a few bins.

Histogram → amax: how a range is chosen once all numbers are counted.

`percentile`  the magnitude that 99.99% of the numbers don't exceed (Wu et al. 2020, https://arxiv.org/abs/2004.09602).
`mse`         the amax with the least squared error of quantization, clipping and rounding together, between 5% and 100%
              of the largest magnitude (Sung et al. 2015, https://arxiv.org/abs/1511.06488).
`entropy`     the amax whose grid keeps most of the information: the least Kullback-Leibler divergence (its own file).
`auto`        of all these and the largest magnitude, the one with the least squared error.

Observers: what is remembered of a tensor while the images go by, and the range it gives in the end.

Each is three pure functions over explicit state: `init` makes it, `update` takes in a batch, `finalize` gives the
range.

`minmax`  the largest magnitude of all. Nothing saturates; one outlier costs every other number precision.
`ema`     a moving average of each batch's largest magnitude m (Jacob et al. 2017, https://arxiv.org/abs/1712.05877,
          section 3.1): a ← a + 0.1 (m - a), from the first m on. The one observer that the order of batches matters to.
`percentile`, `entropy`, `mse`, `auto`  keep a histogram; see `methods`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from keras_qat.calibration.histogram import Histogram, merge
from keras_qat.errors import UserError
from keras_qat.types import QuantSpec

_BINS_PER_LEVEL = 16
_ENTROPY_CANDIDATES = 128
_FARTHEST = 16


def entropy(histogram: Histogram, spec: QuantSpec) -> float:
    """The amax with the least Kullback-Leibler divergence; 0 where all numbers are 0.

    Args:
        histogram: of the magnitudes.
        spec: the integers.
    """
    if histogram.amax == 0:
        return 0.0
    levels = spec.q_max + 1
    bins = levels * _BINS_PER_LEVEL
    most = float(histogram.quantiles(np.array([0.999]))[0])
    top = min(histogram.amax, _FARTHEST * most) if most > np.finfo(np.float32).tiny else histogram.amax
    counts = histogram.rebinned(np.append(np.linspace(0.0, top, bins + 1), np.inf))
    beyond, counts = counts[-1], counts[:-1]
    # Zeros are exact in any range. A ReLU makes so many that they would decide alone: count the first bin as the next.
    counts[0] = counts[1]
    if not counts.any():
        return top
    candidates = np.unique(np.linspace(levels, bins, _ENTROPY_CANDIDATES).astype(int))
    divergences = [_divergence(counts, beyond, int(i), levels) for i in candidates]
    return float(candidates[np.argmin(divergences)] / bins * top)


def _divergence(counts: np.ndarray, beyond: float, i: int, levels: int) -> float:
    """KL(P ‖ Q) of keeping the first `i` bins; infinite where they are all empty."""
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


Method = Callable[[Histogram, QuantSpec], float]
"""(histogram of the magnitudes, the integers) → amax."""

PERCENTILE = 99.99

_MSE_CANDIDATES = np.linspace(0.05, 1.0, 39)
_STEP = _MSE_CANDIDATES[1] - _MSE_CANDIDATES[0]
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
    share = _MSE_CANDIDATES[np.argmin(squared_errors(histogram, _MSE_CANDIDATES * histogram.amax, spec))]
    finer = np.clip(share + _FINER, _MSE_CANDIDATES[0], 1.0) * histogram.amax
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


EMA_RATE = 0.1


class Choice(NamedTuple):
    """A range, and the method that chose it."""

    amax: float
    method: str


@dataclass(frozen=True)
class Observer:
    """One way to observe a tensor.

    Args:
        init: () → the state before any batch.
        update: (state, what a batch showed) → the next state.
        finalize: (state, the integers) → the range.
        counts: whether `update` needs the counts of the histogram; else only its `amax`, which is cheaper to get.
    """

    init: Callable[[], Any]
    update: Callable[[Any, Histogram], Any]
    finalize: Callable[[Any, QuantSpec], Choice]
    counts: bool


def _largest(state: float, batch: Histogram) -> float:
    return max(state, batch.amax)


def _moving_average(state: float | None, batch: Histogram) -> float:
    return batch.amax if state is None else state + EMA_RATE * (batch.amax - state)


def _as_it_is(state: float | None, spec: QuantSpec, *, name: str) -> Choice:  # noqa: ARG001
    return Choice(state or 0.0, name)


def _by_histogram(name: str) -> Observer:
    def finalize(state: Histogram, spec: QuantSpec) -> Choice:
        return Choice(METHODS[name](state, spec), name)

    return Observer(Histogram.empty, merge, finalize, counts=True)


OBSERVERS: dict[str, Observer] = {
    "minmax": Observer(float, _largest, partial(_as_it_is, name="minmax"), counts=False),
    "ema": Observer(lambda: None, _moving_average, partial(_as_it_is, name="ema"), counts=False),
    **{name: _by_histogram(name) for name in METHODS if name != "minmax"},
    "auto": Observer(Histogram.empty, merge, lambda state, spec: Choice(*best_of_all(state, spec)), counts=True),
}


def register_observer(name: str, observer: Observer) -> None:
    """Make an observer known by its name, as `calibrate(method=name)` asks for it.

    Raises:
        UserError: the name is taken.

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
    """The observer of that name.

    Raises:
        UserError: there is none.

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
