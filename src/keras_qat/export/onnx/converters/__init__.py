"""The converters; importing this package registers them."""

from keras_qat.export.onnx.converters import (
    activation,
    arithmetic,
    functions,
    indexing,
    merge,
    movement,
    normalization,
    pooling,
    quantize,
    reduction,
    scale,
    weighted,
)

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
