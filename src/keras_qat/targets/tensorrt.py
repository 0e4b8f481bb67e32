"""NVIDIA TensorRT (and TensorRT-RTX): int8, zero-point 0, Q/DQ on the inputs of weighted layers.

TensorRT takes a Q/DQ file at its word ("explicit quantization"): a layer runs in INT8 where DequantizeLinear nodes feed
it and QuantizeLinear nodes follow. It moves pairs past layers that commute with them, and fuses the rest.
"""

from keras_qat.targets.target import Inputs, OpRule, Target
from keras_qat.types import OpKind

_PLACEMENT = (
    "NVIDIA, Working with Quantized Types, Q/DQ Layer-Placement Recommendations, "
    "https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/work-quantized-types.html"
)
_PROPAGATION = (
    "NVIDIA, Explicit Quantization, "
    "https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/quantized-types-explicit-quantization.html"
)
_RESIDUAL = (
    "NVIDIA, Add Custom QDQ Insertion Case, "
    "https://docs.nvidia.com/deeplearning/tensorrt/tensorflow-quantization-toolkit/docs/docs/add_custom_qdq_cases.html"
)

_WEIGHTED = OpRule(
    Inputs.ALL,
    weights=True,
    because="TensorRT runs a weighted layer in INT8 when its inputs and weights are quantized",
    source=_PLACEMENT,
)

TENSORRT = Target(
    name="tensorrt",
    storage="int8",
    unsigned_non_negative=False,
    rules={
        OpKind.CONV: _WEIGHTED,
        OpKind.DEPTHWISE_CONV: _WEIGHTED,
        OpKind.DENSE: _WEIGHTED,
        OpKind.ADD: OpRule(
            Inputs.ALL_BUT_FUSED_CONV,
            because="a quantized residual input lets TensorRT fuse the addition into the other branch's convolution",
            source=_RESIDUAL,
        ),
        OpKind.AVERAGE_POOL: OpRule(
            Inputs.ALL,
            because="average pooling doesn't commute with Q/DQ; a quantized input lets the layer before it write INT8",
            source=_PLACEMENT,
        ),
        OpKind.MAX_POOL: OpRule(
            because="max pooling commutes with Q/DQ, and TensorRT moves the pair to its input", source=_PROPAGATION
        ),
        OpKind.CONCAT: OpRule(
            because="concatenation commutes with Q/DQ, and TensorRT moves the pair behind it to its inputs",
            source=_PROPAGATION,
        ),
        OpKind.MULTIPLY: OpRule(
            because="a gate's product runs in the engine's floating-point kernels, where its precision is free",
            source=_PLACEMENT,
        ),
        OpKind.BATCH_NORM: OpRule(
            Inputs.ALL,
            because="a batch norm that no convolution feeds reads the residual stream, which its Add reads in INT8 too",
            source=_RESIDUAL,
        ),
    },
)
