from .arithmetic import (
    SMALLEST_AMAX,
    channel_amax,
    fake_quantize,
    fake_quantize_kernel,
    fake_quantize_learned,
    scale_of,
)
from .quantized import (
    FakeQuantize,
    QuantizedConv2D,
    QuantizedDense,
    QuantizedDepthwiseConv2D,
    WeightQuantized,
    quantized_layer,
    register_quantized_layer,
)

__all__ = [
    "SMALLEST_AMAX",
    "FakeQuantize",
    "QuantizedConv2D",
    "QuantizedDense",
    "QuantizedDepthwiseConv2D",
    "WeightQuantized",
    "channel_amax",
    "fake_quantize",
    "fake_quantize_kernel",
    "fake_quantize_learned",
    "quantized_layer",
    "register_quantized_layer",
    "scale_of",
]
