"""What each epoch gave, and which epoch is the best."""

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

from keras_qat.errors import UserError
from keras_qat.types import Monitor


@dataclass(frozen=True)
class EpochRecord:
    """One epoch.

    Args:
        epoch: 0 is the model as given, 1 the first trained epoch.
        learning_rate: of the epoch's last step; `None` for epoch 0.
        train_loss: mean over the epoch, in training mode; `None` for epoch 0.
        train_accuracy: top-1 from 0 to 1, likewise; `None` also without labels.
        selection_loss: mean over the selection data, after the epoch.
        selection_accuracy: top-1 from 0 to 1, after the epoch; `None` without labels.
        selection_agreement: share of images with the teacher's class, 0 to 1; `None` without a teacher.
        seconds: wall time, selection included.
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
        records: one an epoch.
        monitor: what the best epoch is chosen by.

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
        """The last finished epoch; -1 where not even epoch 0 was evaluated."""
        return len(self.records) - 1

    @property
    def best_epoch(self) -> int:
        """The epoch with the lowest selection loss or the highest top-1; of equals the better by the other."""

        def rank(record: EpochRecord) -> tuple[float, ...]:
            by = {"loss": -record.selection_loss, "accuracy": record.selection_accuracy or 0.0}
            return by.pop(self.monitor), *by.values(), -record.epoch

        return max(self.records, key=rank).epoch

    def with_record(self, record: EpochRecord) -> "History":
        """Return a new history, one epoch longer.

        Raises:
            UserError: the selection loss isn't finite, so the model's outputs aren't.
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
        """Return the records, as JSON can hold them."""
        return [asdict(record) for record in self.records]

    @classmethod
    def from_list(cls, records: list[dict[str, Any]], monitor: Monitor = "loss") -> "History":
        """Make a history from `to_list`'s result."""
        return cls(tuple(EpochRecord(**record) for record in records), monitor)
