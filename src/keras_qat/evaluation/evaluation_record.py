"""The result of evaluating model files as one frozen value, from which table and JSON are made."""

from dataclasses import dataclass
from typing import Any

from keras_qat.evaluation.compare import Comparison
from keras_qat.evaluation.proportion import Proportion


@dataclass(frozen=True)
class ScoredFile:
    """One file on all images.

    Args:
        name: what the table calls it.
        path: as it was given.
        engine: the engine and its version.
        device: where it ran.
        preprocessing: what was done to the images, as `Preprocessing.to_dict()` has it.
        batch_size: images in a run.
        top1: the label is the best class; `None` for images without labels.
        top_k: the label is among the k best; likewise.
        images_per_second: in the engine alone, median of the batches.
    """

    name: str
    path: str
    engine: str
    device: str
    preprocessing: dict[str, Any]
    batch_size: int
    top1: Proportion | None
    top_k: Proportion | None
    images_per_second: float

    def to_dict(self) -> dict[str, Any]:
        """The figures as JSON can hold them."""
        return {**vars(self), "top1": _as_dict(self.top1), "top_k": _as_dict(self.top_k)}


@dataclass(frozen=True)
class Evaluation:
    """One file, or two compared.

    Args:
        data: name of the images.
        images: how many there were.
        skipped: how many more were left out: records and image files that turned out broken.
        k: of top-k.
        files: the file, and the one that it is compared with.
        comparison: of the two; `None` for one, and for images without labels.
        agreement: the images to which both give the same best class; `None` for one.
    """

    data: str
    images: int
    skipped: int
    k: int
    files: tuple[ScoredFile, ...]
    comparison: Comparison | None = None
    agreement: Proportion | None = None

    def to_dict(self) -> dict[str, Any]:
        """All figures as JSON can hold them."""
        return {
            **vars(self),
            "files": [file.to_dict() for file in self.files],
            "comparison": None if self.comparison is None else self.comparison.to_dict(),
            "agreement": _as_dict(self.agreement),
        }


def _as_dict(share: Proportion | None) -> dict[str, float] | None:
    return None if share is None else share.to_dict()
