"""The converters; importing this package registers them."""

from keras_qat.onnx.converters import activation, movement, normalization
from keras_qat.onnx.converters import activation as functions
from keras_qat.onnx.converters import elementwise as arithmetic
from keras_qat.onnx.converters import elementwise as merge
from keras_qat.onnx.converters import elementwise as reduction
from keras_qat.onnx.converters import movement as indexing
from keras_qat.onnx.converters import normalization as scale
from keras_qat.onnx.converters import windows as pooling
from keras_qat.onnx.converters import windows as quantize
from keras_qat.onnx.converters import windows as weighted

__all__ = [
    "activation",
    "arithmetic",
    "functions",
    "indexing",
    "merge",
    "movement",
    "normalization",
    "pooling",
    "quantize",
    "reduction",
    "scale",
    "weighted",
]
