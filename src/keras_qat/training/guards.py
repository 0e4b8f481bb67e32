"""Failures of a training step, in the user's words: a loss that isn't finite, no memory left."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras

from keras_qat.errors import UserError

_NO_MEMORY = ("ResourceExhausted", "OutOfMemory", "RESOURCE_EXHAUSTED")


class FiniteLoss(keras.callbacks.Callback):
    """Stops the run at the first step whose loss isn't finite, before a checkpoint is written.

    Args:
        first_step: steps of the epoch that an earlier run took.

    Raises:
        UserError: the loss isn't finite.
    """

    def __init__(self, first_step: int = 0) -> None:
        super().__init__()
        self._epoch, self._first = 0, first_step

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
        """Note the epoch for the message."""
        self._epoch = epoch + 1

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Look at the running mean of the loss, which one NaN is enough to spoil."""
        loss = float((logs or {}).get("loss", 0.0))
        if not math.isfinite(loss):
            rate = float(self.model.optimizer.learning_rate)
            raise UserError(
                f"The training loss isn't finite in epoch {self._epoch}, step {self._first + batch + 1}. "
                f"Received: loss={loss} at learning rate {rate:.3g}. "
                "Lower the learning rate, for example to a tenth, and check that the images are finite."
            )


@contextmanager
def memory_explained(batch_size: int | None, accumulate: int = 1) -> Iterator[None]:
    """Turn an out-of-memory error of any backend into one that says what to do.

    Args:
        batch_size: images of one step, for the message; `None` where it isn't known.
        accumulate: steps whose gradients are averaged.

    Raises:
        UserError: the block ran out of memory. Other errors pass through.
    """
    try:
        yield
    except Exception as error:
        # Each backend has a class of its own, and importing all three to name them isn't worth it.
        text = f"{type(error).__name__}: {error}"
        if not isinstance(error, MemoryError) and not any(mark in text for mark in _NO_MEMORY):
            raise
        received = f"batch_size={batch_size}" if batch_size else text.splitlines()[0][:200]
        raise UserError(
            f"Training ran out of memory. Received: {received}. {smaller_batch(batch_size, accumulate)}"
        ) from error


def smaller_batch(batch_size: int | None, accumulate: int) -> str:
    """What to do about a batch that doesn't fit in memory.

    Example:
        >>> smaller_batch(64, 1)
        'Use batch_size=32 with accumulate=2: half the memory, and the weights move as with a batch of 64.'
    """
    if batch_size is None or batch_size == 1:
        return "Use smaller batches or images, or a machine with more memory."
    half, times = batch_size // 2, accumulate * 2
    return (
        f"Use batch_size={half} with accumulate={times}: half the memory, and the weights move as with a batch of "
        f"{half * times}."
    )
