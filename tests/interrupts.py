"""A training that is cut off, for all tests that go on from one."""

from collections.abc import Callable
from typing import Any

import keras


class InterruptAt(keras.callbacks.Callback):
    """Ctrl-C, or worse, in an epoch.

    Args:
        epoch: from 1.
        step: after which one, from 1; `None` is after the last, when the selection data are evaluated.
        before: called first, such as what kills the process.
    """

    def __init__(self, epoch: int, step: int | None = 2, before: Callable[[], None] | None = None) -> None:
        super().__init__()
        self.at, self.now, self.before = (epoch, step), 0, before

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
        self.now = epoch + 1

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002
        self._end_at(batch + 1)

    def on_test_begin(self, logs: Any = None) -> None:  # noqa: ARG002
        self._end_at(None)

    def _end_at(self, step: int | None) -> None:
        if (self.now, step) != self.at:
            return
        if self.before is not None:
            self.before()
        raise KeyboardInterrupt
