"""The options of an ONNX file, as one value.

`onnx` is not imported here: the command line reads the options before it loads anything heavy.
"""

from dataclasses import dataclass

from keras_qat.types import Precision


@dataclass(frozen=True)
class ExportOptions:
    """How a model is written to an ONNX file. What does not go together is refused where the file is written.

    Args:
        opset: ONNX operator set, 13 to 21. If not given, 17, or 19 for fp16.
        precision: floating-point type of what a quantized file does not quantize: fp32 or fp16. Float files of a run
            are fp32 in any case.
        embed_preprocessing: the file reads uint8 RGB pixels and normalizes them itself. Images are then rounded to
            whole pixels for Keras, too, so that Keras and the file see the same numbers.

    Example:
        >>> ExportOptions(precision="fp16").opset is None
        True
    """

    opset: int | None = None
    precision: Precision = "fp32"
    embed_preprocessing: bool = False
