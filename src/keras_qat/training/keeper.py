"""Keeps the state of a training in the middle of an epoch: an epoch of ImageNet is hours."""

import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np


class StateKeeper(keras.callbacks.Callback):
    """Calls `keep` every so many seconds of one epoch, and puts the running means of a cut epoch back.

    Its `step` is the number of steps of the epoch that were taken.

    Args:
        keep: gets the steps taken of the epoch, and the values of the metrics' variables.
        every_s: seconds from one to the next; 0 keeps after every step.
        steps: of a whole epoch. After the last one nothing is kept here: the epoch's end is about to be.
        first_step: steps of the epoch that an earlier run took.
        metrics: values of the metrics' variables after them.
    """

    def __init__(
        self,
        keep: Callable[[int, tuple[np.ndarray, ...]], None],
        every_s: float,
        steps: int,
        *,
        first_step: int = 0,
        metrics: tuple[np.ndarray, ...] = (),
    ) -> None:
        super().__init__()
        self._keep, self._every, self._steps, self._first, self._metrics = keep, every_s, steps, first_step, metrics
        self._next = time.monotonic() + every_s
        self.step = first_step

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
        """Go on with the means of the cut epoch; Keras has just reset them."""
        if self._metrics:
            for variable, value in zip(self.model.metrics_variables, self._metrics, strict=True):
                variable.assign(value)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002
        """Keep, if it is time."""
        self.step = self._first + batch + 1
        if self.step >= self._steps or time.monotonic() < self._next:
            return
        if hasattr(self.model, "jax_state_sync"):
            self.model.jax_state_sync()  # JAX's step holds the variables' values until asked
        values = tuple(keras.ops.convert_to_numpy(variable) for variable in self.model.metrics_variables)
        self._keep(self.step, values)
        self._next = time.monotonic() + self._every
