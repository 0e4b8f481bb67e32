"""The converters of Keras's layers and operations, by group; importing this package registers them."""

from keras_qat.onnx.converters import (
    activation,
    convolution,
    elementwise,
    functions,
    indexing,
    movement,
    normalization,
    pooling,
    products,
    recurrent,
    reduction,
    resizing,
    slicing,
)

__all__ = [
    "activation",
    "convolution",
    "elementwise",
    "functions",
    "indexing",
    "movement",
    "normalization",
    "pooling",
    "products",
    "recurrent",
    "reduction",
    "resizing",
    "slicing",
]
