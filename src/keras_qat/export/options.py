"""The options of an ONNX file, as one value.

ONNX is not imported here: the command line reads the options before it loads ONNX.
"""

from dataclasses import dataclass

from keras_qat.errors import settle_numbers
from keras_qat.types import Precision


@dataclass(frozen=True)
class ExportOptions:
    """How a model is written to an ONNX file. Options that don't go together are refused when the file is written.

    Args:
        opset: ONNX operator set, 13 to 21. If not given, 17, or 19 for fp16.
        precision: floating-point type of the parts of a quantized file that are not quantized: fp32 or fp16. Float
            files of a run are always fp32.
        embed_preprocessing: write a file that reads uint8 pixels, RGB or gray, and normalizes them itself. Images are
            then rounded to whole pixels for Keras, too, so that Keras and the file see the same numbers.

    Raises:
        UserError: If the operator set isn't a whole number.

    Example:
        >>> ExportOptions(precision="fp16").opset is None
        True
    """

    opset: int | None = None
    precision: Precision = "fp32"
    embed_preprocessing: bool = False

    def __post_init__(self) -> None:
        """Refuse an operator set that isn't a number."""
        settle_numbers(self)
