"""The record of each epoch, and the choice of the best one."""

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

from keras_qat.errors import UserError
from keras_qat.types import Monitor


@dataclass(frozen=True)
class EpochRecord:
    """The results of one epoch.

    Args:
        epoch: number of the epoch; 0 is the model as given, 1 the first trained epoch.
        learning_rate: learning rate of the epoch's last step; `None` for epoch 0.
        train_loss: mean loss over the epoch, in training mode; `None` for epoch 0.
        train_accuracy: mean top-1 accuracy over the epoch, from 0 to 1; `None` for epoch 0 or without labels.
        selection_loss: mean loss over the selection data, after the epoch.
        selection_accuracy: top-1 accuracy on the selection data, from 0 to 1; `None` without labels.
        seconds: wall time, selection included.
        selection_agreement: share of the selection images to which the teacher gives the same class, from 0 to 1;
            `None` without a teacher.
    """

    epoch: int
    learning_rate: float | None
    train_loss: float | None
    train_accuracy: float | None
    selection_loss: float
    selection_accuracy: float | None
    seconds: float
    selection_agreement: float | None = None


@dataclass(frozen=True)
class History:
    """The epochs of a run so far, in order from epoch 0.

    Args:
        records: one record per epoch.
        monitor: the metric that chooses the best epoch.

    Example:
        >>> given = EpochRecord(0, None, None, None, selection_loss=0.5, selection_accuracy=0.9, seconds=1.0)
        >>> worse = EpochRecord(1, 1e-3, 0.4, 0.9, selection_loss=0.4, selection_accuracy=0.8, seconds=1.0)
        >>> [History((given,), monitor).with_record(worse).best_epoch for monitor in ("accuracy", "loss")]
        [0, 1]
    """

    records: tuple[EpochRecord, ...] = ()
    monitor: Monitor = "loss"

    @property
    def last_epoch(self) -> int:
        """The last finished epoch; -1 for an empty history."""
        return len(self.records) - 1

    @property
    def best_epoch(self) -> int:
        """The epoch with the lowest selection loss or the highest top-1; the other metric breaks ties."""

        def rank(record: EpochRecord) -> tuple[float, ...]:
            metrics = {"loss": -record.selection_loss, "accuracy": record.selection_accuracy or 0.0}
            return metrics.pop(self.monitor), *metrics.values(), -record.epoch

        return max(self.records, key=rank).epoch

    def with_record(self, record: EpochRecord) -> "History":
        """Return a new history with one more epoch.

        Raises:
            UserError: If the selection loss isn't finite.
        """
        if not math.isfinite(record.selection_loss):
            raise UserError(
                f"The model gives a loss that isn't finite on the selection data after epoch {record.epoch}. "
                f"Received: loss={record.selection_loss}, learning_rate={record.learning_rate}. "
                + (
                    "The given model or its calibration is broken: check its weights and ranges."
                    if record.epoch == 0
                    else "Lower the learning rate, for example to a tenth."
                )
            )
        return replace(self, records=(*self.records, record))

    def to_list(self) -> list[dict[str, Any]]:
        """Return the records in a form that JSON can hold."""
        return [asdict(record) for record in self.records]

    @classmethod
    def from_list(cls, records: list[dict[str, Any]], monitor: Monitor = "loss") -> "History":
        """Make a history from the result of `to_list`."""
        return cls(tuple(EpochRecord(**record) for record in records), monitor)
