"""The callbacks of training, and the explanation of errors of a full memory or disk.

Callbacks stop on a loss that isn't finite, save the state within an epoch, show progress, and write TensorBoard logs.
Others, which work with any `fit`, freeze batch norms and ranges in the middle of training: late in training, the noise
that batches bring into the moving statistics of batch norms and into the ranges of activations outweighs the benefit
(Jacob et al. 2018, https://arxiv.org/abs/1712.05877; Krishnamoorthi 2018, https://arxiv.org/abs/1806.08342). A frozen
batch norm keeps its statistics, scale and offset; a frozen range keeps its amax.
"""

import importlib.util
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import keras
import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from keras_qat.errors import KerasQATError, StorageError, UserError
from keras_qat.files import is_disk_full
from keras_qat.layers import FakeQuantize
from keras_qat.text import shortened
from keras_qat.training.cloning import all_layers
from keras_qat.training.optimizers import dump_optimizer, load_optimizer
from keras_qat.training.trainer import Trainer

_NO_MEMORY = ("ResourceExhausted", "OutOfMemory", "RESOURCE_EXHAUSTED")  # in the name or the text of an error
_REFRESH_S = 0.2

_logger = logging.getLogger(__name__)


class FiniteLoss(keras.callbacks.Callback):
    """Stops training at the first step whose loss isn't finite, before a checkpoint is written.

    Args:
        first_step: number of steps of the first epoch that an earlier run has taken.

    Raises:
        UserError: If the loss is NaN or infinite. It is raised from `fit`.

    Example:
        >>> callback = FiniteLoss()  # model.fit(…, callbacks=[callback])
    """

    def __init__(self, first_step: int = 0) -> None:
        super().__init__()
        self._epoch, self._first = 0, first_step

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
        """Remember the epoch, for the message."""
        self._epoch = epoch + 1

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Check the running mean of the loss, which a single NaN makes NaN."""
        loss = float((logs or {}).get("loss", 0.0))
        if not math.isfinite(loss):
            rate = float(self.model.optimizer.learning_rate)
            raise UserError(
                f"The training loss isn't finite in epoch {self._epoch}, step {self._first + batch + 1}. "
                f"Received: loss={loss} at learning rate {rate:.3g}. "
                "Lower the learning rate, for example to a tenth, and check that the images are finite."
            )


class StateKeeper(keras.callbacks.Callback):
    """Calls `keep` at intervals within one epoch, since an epoch of ImageNet takes hours.

    It also restores the running means of the metrics when an interrupted epoch continues. The attribute `step` is the
    number of steps of the epoch taken so far.

    Args:
        keep: called with the number of steps taken, and the values of the metrics' variables.
        every_s: seconds between two calls; 0 calls it after every step.
        steps: number of steps in a whole epoch. `keep` isn't called after the last one, which ends the epoch.
        first_step: number of steps of the epoch that an earlier run has taken.
        metrics: values of the metrics' variables after these steps.
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
        """Restore the means of the interrupted epoch, which Keras has just reset."""
        if self._metrics:
            for variable, value in zip(self.model.metrics_variables, self._metrics, strict=True):
                variable.assign(value)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002
        """Call `keep`, if the interval has passed."""
        self.step = self._first + batch + 1
        if self.step >= self._steps or time.monotonic() < self._next:
            return
        if hasattr(self.model, "jax_state_sync"):
            self.model.jax_state_sync()  # until then JAX's training step holds the values of the variables
        values = tuple(keras.ops.convert_to_numpy(variable) for variable in self.model.metrics_variables)
        self._keep(self.step, values)
        self._next = time.monotonic() + self._every


class TrainingProgress(keras.callbacks.Callback):
    """Shows a live bar on a terminal, or prints one line per epoch to a file or a pipe.

    Use it as a context manager around the `fit` calls, so that an interrupt leaves the terminal in order.

    Args:
        epochs: number of epochs in the whole run.
        steps_per_epoch: number of steps in one epoch.
        rate_at: step of the whole run (from 0) → its learning rate. To read the rate from the optimizer, JAX would have
            to synchronize all variables.
        done: number of epochs that an earlier run has finished.
        first_step: number of steps of the next epoch that the earlier run has taken.
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
        """Start the bar if the output is a terminal."""
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
        """Show the number of the epoch."""
        self._epoch = epoch
        if self._task is not None:
            self._bar.update(self._task, description=self._title)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Advance the bar, at most a few times a second."""
        now = time.monotonic()
        if self._task is not None and now >= self._next_refresh:
            self._next_refresh = now + _REFRESH_S
            done = self._epoch * self._steps + self._first + batch + 1
            self._bar.update(self._task, completed=done, numbers=self._numbers(logs or {}, done))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Complete the epoch on the bar, and print its line."""
        logs, self._first = logs or {}, 0
        done = (epoch + 1) * self._steps
        numbers = self._numbers(logs, done)
        if "val_loss" in logs:
            numbers += f" | selection loss {logs['val_loss']:.4f}"
            numbers += "".join(f" {text}" for text in measured(logs, "val_"))
        if self._task is not None:
            self._bar.update(self._task, completed=done, numbers=numbers)
        self._console.print(f"{self._title}: {numbers}", highlight=False, soft_wrap=True)

    def _numbers(self, logs: dict[str, float], done: int) -> str:
        rate = self._rate_at(done - 1)
        accuracy = f" accuracy {logs['accuracy']:.2%}" if "accuracy" in logs else ""
        return f"loss {logs.get('loss', float('nan')):.4f}{accuracy} lr {rate:.2e}"


MEASURES: Mapping[str, str] = {"accuracy": "{:.2%}", "agreement": "{:.2%}", "sqnr": "{:.1f} dB"}
"""The measures of a training beside its loss → how each is written."""


def measured(logs: Mapping[str, float], prefix: str = "") -> list[str]:
    """The measures among the logs of an epoch, as text.

    Args:
        logs: values by name.
        prefix: what stands before the names in the logs.

    Example:
        >>> measured({"val_loss": 0.5, "val_agreement": 0.98, "val_sqnr": 31.26}, "val_")
        ['agreement 98.00%', 'sqnr 31.3 dB']
    """
    return [f"{name} {form.format(logs[prefix + name])}" for name, form in MEASURES.items() if prefix + name in logs]


class RangesToTensorBoard(keras.callbacks.Callback):
    """Writes the amax of each `FakeQuantize` layer to TensorBoard after every epoch, as the scalar `range/LAYER`.

    Args:
        folder: folder of the logs; the scalars are written to its subfolder `ranges`.

    Example:
        >>> callback = RangesToTensorBoard("logs")  # model.fit(…, callbacks=[callback])
    """

    def __init__(self, folder: str | Path) -> None:
        super().__init__()
        self._folder = Path(folder)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
        """Write the ranges of the model, or of the student of a `Trainer`."""
        import tensorflow as tf

        with tf.summary.create_file_writer(str(self._folder / "ranges")).as_default(step=epoch):
            # A teacher may be quantized as well, but its ranges don't change.
            trained = self.model.student if isinstance(self.model, Trainer) else self.model
            for layer in all_layers(trained):
                if isinstance(layer, FakeQuantize):
                    tf.summary.scalar(f"range/{layer.name}", float(layer.amax.numpy()))


def tensorboard_callbacks(folder: Path) -> list[keras.callbacks.Callback]:
    """Return the callbacks that write TensorBoard logs; none, with a note in the log, if a package isn't installed.

    Args:
        folder: folder of the logs: loss, accuracy, agreement and learning rate by Keras, and the ranges.
    """
    if importlib.util.find_spec("tensorboard") is None:
        _logger.info("No TensorBoard logs: install it with `pip install 'keras-qat[tensorboard]'`.")
        return []
    if importlib.util.find_spec("tensorflow") is None:
        _logger.info("No TensorBoard logs: TensorFlow writes them. Install it with `pip install 'keras-qat[cpu]'`.")
        return []
    return [keras.callbacks.TensorBoard(folder, write_graph=False), RangesToTensorBoard(folder)]


@contextmanager
def memory_explained(batch_size: int | None, accumulate: int = 1) -> Iterator[None]:
    """Replace an error of any backend about a full memory, or a full disk, by one that says what to do.

    Args:
        batch_size: number of images in one step, for the message; `None` if it isn't known.
        accumulate: number of steps whose gradients are averaged.

    Raises:
        StorageError: If a file can't be written in the block since the disk is full, as TensorBoard's may be.
        UserError: If the block runs out of memory. All other errors pass through.
    """
    try:
        yield
    except Exception as error:
        # Each backend has its own class of error. To name the classes, all three backends would have to be imported.
        text = f"{type(error).__name__}: {error}"
        if is_disk_full(error) and not isinstance(error, KerasQATError):
            raise StorageError(
                f"A disk is full, so training stopped. Received: {shortened(text)}. Make room on it, and start "
                "the same run again: it resumes from its last checkpoint."
            ) from error
        if not isinstance(error, MemoryError) and not any(mark in text for mark in _NO_MEMORY):
            raise
        received = f"batch_size={batch_size}" if batch_size else shortened(text)
        raise UserError(
            f"Training ran out of memory. Received: {received}. {smaller_batch(batch_size, accumulate)}"
        ) from error


def smaller_batch(batch_size: int | None, accumulate: int) -> str:
    """Return the advice to halve a batch that doesn't fit in memory, and to accumulate twice as many steps.

    Args:
        batch_size: number of images in one step; `None` if it isn't known.
        accumulate: number of steps whose gradients are averaged now.

    Example:
        >>> smaller_batch(64, 1)
        'Use batch_size=32 with accumulate=2: half the memory, and the weights move as with a batch of 64.'
    """
    if batch_size is None or batch_size == 1:
        return "Use smaller batches or images, or a machine with more memory."
    half, steps = batch_size // 2, accumulate * 2
    return (
        f"Use batch_size={half} with accumulate={steps}: half the memory, and the weights move as with a batch of "
        f"{half * steps}."
    )


class _FreezeAfter(keras.callbacks.Callback):
    def __init__(self, epochs: int, freeze: Callable[[keras.Model], bool]) -> None:
        super().__init__()
        self._epochs, self._freeze = epochs, freeze

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
        """Freeze at the start of epoch `epochs` (counted from 0)."""
        if epoch >= self._epochs and self._freeze(self.model):
            _renew_step(self.model)


class FreezeBatchNorm(_FreezeAfter):
    """Freezes all batch norms after a number of epochs.

    Args:
        epochs: number of epochs in which batch norms train.

    Example:
        >>> callback = FreezeBatchNorm(2)  # model.fit(…, callbacks=[callback])
    """

    def __init__(self, epochs: int) -> None:
        super().__init__(epochs, freeze_batch_norms)


class FreezeRanges(_FreezeAfter):
    """Freezes the ranges of all `FakeQuantize` layers after a number of epochs.

    Args:
        epochs: number of epochs in which the ranges follow the batches or are learned.

    Example:
        >>> callback = FreezeRanges(2)  # model.fit(…, callbacks=[callback])
    """

    def __init__(self, epochs: int) -> None:
        super().__init__(epochs, freeze_ranges)


def freeze_batch_norms(model: keras.Model) -> bool:
    """Freeze all batch norms of a model in place, and return whether any of them was trainable before.

    Example:
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.BatchNormalization()])
        >>> freeze_batch_norms(model), freeze_batch_norms(model)
        (True, False)
    """
    moving = [
        layer for layer in all_layers(model) if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
    ]
    for layer in moving:
        layer.trainable = False
    return bool(moving)


def freeze_ranges(model: keras.Model) -> bool:
    """Freeze the ranges of all `FakeQuantize` layers in place, and return whether any of them was free before."""
    moving = [layer for layer in all_layers(model) if isinstance(layer, FakeQuantize) and layer.range_mode != "fixed"]
    for layer in moving:
        layer.freeze_range()
    return bool(moving)


def _renew_step(model: keras.Model) -> None:
    """Rebuild the training step with an optimizer of the variables that still train, which takes over the state."""
    if not model.compiled:
        return
    old = model.optimizer
    if old is not None and old.built:
        new = type(old).from_config(old.get_config())
        for name in ("_exclude_from_weight_decay", "_exclude_from_weight_decay_pattern"):
            if hasattr(old, name):  # chosen by whoever made the optimizer, and not part of its configuration
                setattr(new, name, getattr(old, name))
        new.build(model.trainable_variables)
        load_optimizer(new, dump_optimizer(old))
        model.optimizer = new
    model.train_function = None
    model.make_train_function(force=True)
