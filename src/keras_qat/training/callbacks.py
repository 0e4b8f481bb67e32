"""Failures of a training step, in the user's words: a loss that isn't finite, no memory left.

Keeps the state of a training in the middle of an epoch: an epoch of ImageNet is hours.

What a training run shows while it runs.

What TensorBoard shows of a training: loss, accuracy, agreement and learning rate by Keras, and the ranges by us.
"""

import importlib.util
import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import keras
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from keras_qat.errors import UserError
from keras_qat.layers import FakeQuantize
from keras_qat.training.cloning import all_layers
from keras_qat.training.distiller import Distiller

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


_REFRESH_S = 0.2


class TrainingProgress(keras.callbacks.Callback):
    """A live bar on a terminal; one plain line an epoch where the output is a file or a pipe.

    Use it as a context manager around the `fit` calls, so that an interrupt leaves the terminal in order.

    Args:
        epochs: epochs of the whole run.
        steps_per_epoch: steps of one epoch.
        rate_at: step of the whole run (from 0) → its learning rate. Asked of the optimizer, JAX would have to
            bring all variables up to date.
        done: epochs that an earlier run has finished.
        first_step: steps of the next one that it took.
        console: where to write; standard error by default, since standard output is for results.
    """

    def __init__(
        self,
        epochs: int,
        steps_per_epoch: int,
        rate_at: Callable[[int], float],
        *,
        done: int = 0,
        first_step: int = 0,
        console: Console | None = None,
    ) -> None:
        super().__init__()
        self._epochs, self._steps, self._epoch, self._first = epochs, steps_per_epoch, done, first_step
        self._rate_at = rate_at
        self._console = console or Console(stderr=True)
        self._next_refresh = 0.0
        self._task: TaskID | None = None
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[numbers]}"),
            TimeRemainingColumn(),
            console=self._console,
        )

    def __enter__(self) -> "TrainingProgress":  # noqa: PYI034 - typing.Self needs Python 3.11
        """Start the bar, on a terminal."""
        if self._console.is_terminal:
            total, done = self._epochs * self._steps, self._epoch * self._steps + self._first
            self._task = self._bar.add_task(self._title, total=total, completed=done, numbers="")
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the bar."""
        if self._task is not None:
            self._bar.stop()

    @property
    def _title(self) -> str:
        return f"epoch {min(self._epoch + 1, self._epochs)}/{self._epochs}"

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
        """Name the epoch."""
        self._epoch = epoch
        if self._task is not None:
            self._bar.update(self._task, description=self._title)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Move the bar, a few times a second at most."""
        now = time.monotonic()
        if self._task is not None and now >= self._next_refresh:
            self._next_refresh = now + _REFRESH_S
            done = self._epoch * self._steps + self._first + batch + 1
            self._bar.update(self._task, completed=done, numbers=self._numbers(logs or {}, done))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Close the epoch: on the bar, or as a line."""
        logs, self._first = logs or {}, 0
        done = (epoch + 1) * self._steps
        numbers = self._numbers(logs, done)
        if "val_loss" in logs:
            numbers += f" | selection loss {logs['val_loss']:.4f}"
            shares = (name for name in ("accuracy", "agreement") if f"val_{name}" in logs)
            numbers += "".join(f" {name} {logs[f'val_{name}']:.2%}" for name in shares)
        if self._task is not None:
            self._bar.update(self._task, completed=done, numbers=numbers)
        self._console.print(f"{self._title}: {numbers}", highlight=False, soft_wrap=True)

    def _numbers(self, logs: dict[str, float], done: int) -> str:
        rate = self._rate_at(done - 1)
        accuracy = f" accuracy {logs['accuracy']:.2%}" if "accuracy" in logs else ""
        return f"loss {logs.get('loss', float('nan')):.4f}{accuracy} lr {rate:.2e}"


_logger = logging.getLogger(__name__)


class RangesToTensorBoard(keras.callbacks.Callback):
    """Writes the amax of every quantized tensor after each epoch, as the scalar `range/TENSOR`.

    Args:
        folder: of the logs.

    Example:
        >>> callback = RangesToTensorBoard("logs")  # model.fit(…, callbacks=[callback])
    """

    def __init__(self, folder: str | Path) -> None:
        super().__init__()
        self._folder = Path(folder)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
        """Write them."""
        import tensorflow as tf

        with tf.summary.create_file_writer(str(self._folder / "ranges")).as_default(step=epoch):
            # A teacher may be quantized, too; its ranges don't change.
            trained = self.model.student if isinstance(self.model, Distiller) else self.model
            for layer in all_layers(trained):
                if isinstance(layer, FakeQuantize):
                    tf.summary.scalar(f"range/{layer.name}", float(layer.amax.numpy()))


def tensorboard_callbacks(folder: Path) -> list[keras.callbacks.Callback]:
    """Keras's and ours, writing below `folder`; none where TensorBoard isn't installed, and the log says so."""
    if importlib.util.find_spec("tensorboard") is None:
        _logger.info("No TensorBoard logs: install it with `pip install 'keras-qat[tensorboard]'`.")
        return []
    return [keras.callbacks.TensorBoard(folder, write_graph=False), RangesToTensorBoard(folder)]
