"""What a training run shows while it runs."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

import keras
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

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
