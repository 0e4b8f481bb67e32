"""What an evaluation is made of."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from keras_qat.data import Preprocessing
from keras_qat.errors import UserError
from keras_qat.seeds import require_seed


@dataclass(frozen=True)
class EvaluationSettings:
    """One file on one data set, or two files on the same images of it.

    Args:
        file: the model file, or the folder of a SavedModel.
        data: as for `load_validation`: "digits", or a folder.
        engine: what runs the file; by its suffix if not given.
        preprocessing: of both files; what each file says by itself if not given.
        batch_size: images in a run; a file with a fixed batch has its own.
        k: of top-k; with fewer classes than that, their number.
        images: how many validation images; all if not given.
        seed: that of the run: it cuts the digits, and chooses the images where not all are taken.
        threads: of one inference; what the engine chooses if not given.
        compare: the file to compare with.
        compare_engine: what runs that.
        skip_bad: leave out images that can't be decoded.

    Raises:
        UserError: a number is out of range, or an engine is named for no file.
    """

    file: Path
    data: str
    engine: str | None = None
    preprocessing: Preprocessing | None = None
    batch_size: int = 32
    k: int = 5
    images: int | None = None
    seed: int = 0
    threads: int | None = None
    compare: Path | None = None
    compare_engine: str | None = None
    skip_bad: bool = False

    def __post_init__(self) -> None:
        """Refuse what no evaluation can be."""
        for name in ("batch_size", "k", "images"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"`{name}` must be at least 1. Received: {value}. Give a larger number.")
        require_seed(self.seed)
        if self.compare is None and self.compare_engine is not None:
            raise UserError(
                "There is no file for that engine. "
                f"Received: compare_engine={self.compare_engine!r} without a file to compare with. Name one."
            )

    @property
    def files(self) -> tuple[tuple[Path, str | None], ...]:
        """Each file with its engine."""
        first = (self.file, self.engine)
        return (first,) if self.compare is None else (first, (self.compare, self.compare_engine))

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON can hold them."""
        paths = {"file": str(self.file), "compare": None if self.compare is None else str(self.compare)}
        return {**asdict(self), **paths}
