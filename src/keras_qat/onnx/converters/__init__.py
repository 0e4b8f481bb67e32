"""The converters of Keras's layers and operations, by group; importing this package registers them."""

from keras_qat.onnx.converters import activation, elementwise, movement, normalization, pooling, weighted

__all__ = ["activation", "elementwise", "movement", "normalization", "pooling", "weighted"]
