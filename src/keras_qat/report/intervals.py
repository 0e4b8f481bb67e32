"""The accuracies of a record with their 95% intervals."""

from dataclasses import dataclass

from keras_qat.evaluation import Proportion, proportion
from keras_qat.report.record import Record


@dataclass(frozen=True)
class Accuracy:
    """One accuracy of one row.

    Args:
        variant: name of the row.
        where: "Keras" or "deployed".
        top1: the share with its interval.
    """

    variant: str
    where: str
    top1: Proportion

    @property
    def text(self) -> str:
        """The share and its interval, as a report writes them."""
        return f"{100 * self.top1.value:.2f}% ({interval_text(self.top1)})"


def interval_text(share: Proportion) -> str:
    """The two ends.

    Example:
        >>> interval_text(proportion(90, 100))
        '82.6 to 94.5%'
    """
    return f"{100 * share.low:.1f} to {100 * share.high:.1f}%"


def accuracies(record: Record) -> tuple[Accuracy, ...]:
    """Every top-1 accuracy of a record, row for row, Keras before deployed; none where the images have no labels."""
    found = [
        (row.name, where, share)
        for row in record.rows
        for where, share in (("Keras", row.keras_top1), ("deployed", row.deployed_top1))
    ]
    return tuple(
        Accuracy(name, where, share_of(share, record.images)) for name, where, share in found if share is not None
    )


def share_of(share: float, images: int) -> Proportion:
    """A share of so many images, as a count of them with its interval.

    Example:
        >>> share_of(0.9561, 360).count
        344
    """
    return proportion(round(share * images), images)
