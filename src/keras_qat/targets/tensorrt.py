"""NVIDIA TensorRT (and TensorRT-RTX): int8, zero-point 0, Q/DQ on the inputs of weighted layers.

Source: "Working with Quantized Types", https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/work-quantized-types.html,
section "Q/DQ Layer-Placement Recommendations": quantize all inputs of weighted operations, don't quantize their
outputs, quantize the residual input of a skip connection, and try the layers that don't commute with Q/DQ.
"""

from keras_qat.targets.target import Inputs, OpRule, Target
from keras_qat.types import OpKind

_WEIGHTED = OpRule(
    Inputs.ALL,
    weights=True,
    because="TensorRT runs a weighted layer in INT8 when its inputs and weights are quantized",
)
_POOL = OpRule(
    Inputs.ALL,
    because="average pooling doesn't commute with Q/DQ; a quantized input lets the layer before it write INT8",
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
        ),
        OpKind.AVERAGE_POOL: _POOL,
        OpKind.MAX_POOL: OpRule(because="max pooling commutes with Q/DQ, and TensorRT moves the pair to its input"),
        OpKind.BATCH_NORM: OpRule(
            Inputs.ALL,
            because="a batch norm that no convolution feeds reads the residual stream, which its Add reads in INT8 too",
        ),
    },
)
