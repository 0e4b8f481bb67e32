"""What an export is made of."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from keras_qat.errors import StorageError
from keras_qat.export import require_opset
from keras_qat.seeds import require_seed
from keras_qat.targets import find_target
from keras_qat.types import Precision

Form = Literal["onnx", "saved-model"]


@dataclass(frozen=True)
class ExportSettings:
    """One Keras model, to one file or folder.

    Args:
        model: a .keras file, float or quantized.
        output: where to write; beside the model if not given.
        form: an ONNX file, or TensorFlow's SavedModel.
        target: the engine whose preferences an ONNX file follows.
        opset: ONNX operator set, 13 to 21; 17 if not given, 19 for fp16.
        precision: of what an ONNX file doesn't quantize.
        embed_preprocessing: an ONNX file reads uint8 pixels and normalizes them itself.
        seed: of the random numbers that the file is compared on.

    Raises:
        StorageError: the output would replace the model, or is no name of an ONNX file.
        UserError: the target or opset is unknown, or they don't go together.

    Example:
        >>> ExportSettings(Path("made/qat.keras")).path.name
        'qat.onnx'
    """

    model: Path
    output: Path | None = None
    form: Form = "onnx"
    target: str = "onnxruntime"
    opset: int | None = None
    precision: Precision = "fp32"
    embed_preprocessing: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what no export can be."""
        find_target(self.target)
        require_opset(self.opset, self.precision)
        require_seed(self.seed)
        if self.form == "onnx" and self.path.suffix != ".onnx":
            raise StorageError(
                f"The name of an ONNX file ends in .onnx. Received: {str(self.path)!r}. Name the output that way."
            )
        if self.path.resolve() == self.model.resolve():
            raise StorageError(
                f"The file would replace its own model. Received: {str(self.path)!r}. Name another output."
            )

    @property
    def path(self) -> Path:
        """Where it is written."""
        if self.output is not None:
            return self.output
        if self.form == "saved-model":
            return self.model.with_name(f"{self.model.stem}_saved_model")
        return self.model.with_suffix(".onnx")

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON can hold them."""
        paths = {"model": str(self.model), "output": None if self.output is None else str(self.output)}
        return {**asdict(self), **paths}
