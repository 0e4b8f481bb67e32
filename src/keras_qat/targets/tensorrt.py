"""NVIDIA TensorRT (and TensorRT-RTX): int8, zero-point 0, Q/DQ on the inputs of weighted layers.

TensorRT follows the Q/DQ pairs of a file and nothing else ("explicit quantization"): a layer runs in INT8 where
DequantizeLinear nodes feed it and QuantizeLinear nodes follow. It moves pairs past layers that commute with them, and
fuses the rest.
"""

from keras_qat import machine
from keras_qat.targets.target import ONNX_DOMAINS, Engine, Inputs, Limits, OpRule, Target
from keras_qat.types import OpKind

_PAGE = "https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/work-quantized-types.html"
_PLACEMENT = f"NVIDIA, Working with Quantized Types, Q/DQ Layer-Placement Recommendations, {_PAGE}"
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
        OpKind.CONV_TRANSPOSE: _WEIGHTED,
        OpKind.MATMUL: OpRule(
            Inputs.ALL, because="TensorRT multiplies matrices in INT8 when both are quantized", source=_PLACEMENT
        ),
        OpKind.RESIZE: OpRule(
            because="repeated pixels are quantized where the next layer reads them", source=_PROPAGATION
        ),
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
    title="TensorRT",
    limits=Limits(
        int32_dequantize=False,
        asymmetric=False,
        uint8=False,
        branch_costs=True,
        domains=ONNX_DOMAINS | {"TRT", "trt"},
        refuses=frozenset({"QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear"}),
        newest_opset=28,
        source=f"https://github.com/onnx/onnx-tensorrt/blob/main/docs/operators.md; {_PAGE}",
    ),
    judges=("tensorrt", "onnxruntime"),
)

ENGINE = Engine(
    name="tensorrt",
    title=TENSORRT.title,
    opens=".engine on a GPU",
    suffixes=(".engine", ".plan"),
    module="tensorrt",
    packages=machine.TENSORRT,
    install="'keras-qat[tensorrt]'",
    needs="gpu",
    magic=b"ftrt",
    runs_code=True,
)

RTX_ENGINE = Engine(
    name="tensorrt-rtx",
    title="TensorRT-RTX",
    opens=".engine on an RTX GPU",
    suffixes=(".engine", ".plan"),
    module="tensorrt_rtx",
    packages=machine.TENSORRT_RTX,
    install="'keras-qat[tensorrt-rtx]' cuda-python",
    needs="gpu",
    magic=b"vtrt",
    ahead_of_time=True,
    runs_code=True,
)
