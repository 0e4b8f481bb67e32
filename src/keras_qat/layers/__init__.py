"""Fake-quantization: the arithmetic, the layer on an edge, and the layers with quantized weights."""

from keras_qat.layers.arithmetic import fake_quantize, fake_quantize_kernel, fake_quantize_learned, scale_of
from keras_qat.layers.fake_quantize_layer import FakeQuantize
from keras_qat.layers.registry import quantized_layer, register_quantized_layer
from keras_qat.layers.weighted import (
    QuantizedConv2D,
    QuantizedDense,
    QuantizedDepthwiseConv2D,
    WeightQuantized,
)

__all__ = [
    "FakeQuantize",
    "QuantizedConv2D",
    "QuantizedDense",
    "QuantizedDepthwiseConv2D",
    "WeightQuantized",
    "fake_quantize",
    "fake_quantize_kernel",
    "fake_quantize_learned",
    "quantized_layer",
    "register_quantized_layer",
    "scale_of",
]
