"""One converter for each Keras layer; importing this package registers them all."""

from keras_qat.export.onnx.converters import (
    activation,
    merge,
    movement,
    normalization,
    pooling,
    quantize,
    scale,
    weighted,
)

__all__ = ["activation", "merge", "movement", "normalization", "pooling", "quantize", "scale", "weighted"]
