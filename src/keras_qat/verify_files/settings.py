"""What a verification is made of."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from keras_qat.data import Preprocessing
from keras_qat.errors import UserError
from keras_qat.seeds import require_seed


@dataclass(frozen=True)
class VerificationSettings:
    """All the ONNX files of a run, or one file.

    Args:
        path: the folder of a run, or an ONNX file.
        model: the Keras model that the file was exported from; that of the same name beside it if not given.
        placement: what the file was planned to be; of a quantized model the `placement.json` beside it, if there is
            one and none is given.
        data: as for `load_validation`; the run's held-out images if not given, and random numbers for one file.
        preprocessing: of those images; what stands in the file or beside it if not given.
        images: how many of them.
        seed: it chooses the images, and draws the random numbers.
        skip_bad: leave out what is no image; a run has its own word on it.

    Raises:
        UserError: a number is out of range, or a folder is given files that only go with one file.

    Example:
        >>> VerificationSettings(Path("qat.onnx")).images
        128
    """

    path: Path
    model: Path | None = None
    placement: Path | None = None
    data: str | None = None
    preprocessing: Preprocessing | None = None
    images: int = 128
    seed: int = 0
    skip_bad: bool = False

    def __post_init__(self) -> None:
        """Refuse what no verification can be."""
        if self.images < 1:
            raise UserError(f"`images` must be at least 1. Received: {self.images}. Give a larger number.")
        require_seed(self.seed)
        if self.path.is_dir() and (self.model is not None or self.placement is not None):
            raise UserError(
                "The folder of a run has a model for each file, and one placement. "
                f"Received: {str(self.path)!r} with model={_text(self.model)}, placement={_text(self.placement)}. "
                "Leave these out, or name one ONNX file of the folder."
            )

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON can hold them."""
        paths = {name: _text(getattr(self, name)) for name in ("path", "model", "placement")}
        return {**asdict(self), **paths}


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
