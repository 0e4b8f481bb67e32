"""Observers: what is remembered of a tensor while the images go by, and the range it gives in the end.

Each is three pure functions over explicit state: `init` makes it, `update` takes in a batch, `finalize` gives the
range.

`minmax`  the largest magnitude of all. Nothing saturates; one outlier costs every other number precision.
`ema`     a moving average of each batch's largest magnitude m (Jacob et al. 2017, https://arxiv.org/abs/1712.05877,
          section 3.1): a ← a + 0.1 (m - a), from the first m on. The one observer that the order of batches matters to.
`percentile`, `entropy`, `mse`, `auto`  keep a histogram; see `methods`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from keras_qat.calibration.histogram import Histogram, merge
from keras_qat.calibration.methods import METHODS, best_of_all
from keras_qat.errors import UserError
from keras_qat.types import QuantSpec

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
