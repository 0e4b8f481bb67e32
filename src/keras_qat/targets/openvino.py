"""OpenVINO on CPUs: uint8 activations, Q/DQ on the inputs of what runs in integers.

OpenVINO turns each pair into a FakeQuantize and moves the dequantization forward, past operations that keep precision,
to the next that reads integers ("low precision transformations"). An output needs no pair of its own where its reader
has one. A residual Add runs as the last step of the convolution that feeds it. Where integers of several scales meet
(concatenation, max-pool) OpenVINO would move the quantization intervals to one of its own choice; with one scale there
is nothing to move, and the file computes what was simulated.
"""

from keras_qat.targets.target import ONNX_DOMAINS, Engine, Inputs, Limits, OpRule, Target
from keras_qat.types import OpKind

_LPT = (
    "OpenVINO, Low Precision Transformations, "
    "https://docs.openvino.ai/2026/api/c_cpp_api/group__ov__transformation__common__api.html"
)
_MEASURED = "benchmarks/deploy.py"

_WEIGHTED = OpRule(
    Inputs.ALL,
    weights=True,
    because="OpenVINO runs a weighted layer in integers when its inputs and weights are quantized",
    source=_LPT,
)
_PRECISION_PRESERVED = OpRule(
    Inputs.ALL,
    output=True,
    because="OpenVINO runs it on integers of one scale",
    source=_LPT,
)

OPENVINO = Target(
    name="openvino",
    storage="uint8",
    unsigned_non_negative=True,
    rules={
        OpKind.CONV: _WEIGHTED,
        OpKind.DEPTHWISE_CONV: _WEIGHTED,
        OpKind.DENSE: _WEIGHTED,
        OpKind.CONV_TRANSPOSE: _WEIGHTED,
        OpKind.MATMUL: OpRule(
            Inputs.ALL, because="OpenVINO multiplies matrices of integers and dequantizes the product", source=_LPT
        ),
        OpKind.RESIZE: _PRECISION_PRESERVED,
        OpKind.ADD: OpRule(
            Inputs.ALL_BUT_FUSED_CONV,
            because="OpenVINO adds a quantized residual input inside the other branch's convolution",
            source=_MEASURED,
        ),
        OpKind.AVERAGE_POOL: OpRule(
            Inputs.ALL, because="OpenVINO pools integers and dequantizes the mean", source=_LPT
        ),
        OpKind.MAX_POOL: _PRECISION_PRESERVED,
        OpKind.CONCAT: _PRECISION_PRESERVED,
        OpKind.MULTIPLY: OpRule(
            because="a gate's product is bound by memory; it gains nothing from integers and loses precision",
            source=_LPT,
        ),
        OpKind.BATCH_NORM: OpRule(
            Inputs.ALL,
            because="a batch norm that no convolution feeds reads the residual stream, quantized for its Add too",
            source=_LPT,
        ),
    },
    shares_range=frozenset({OpKind.MAX_POOL, OpKind.CONCAT, OpKind.RESIZE}),
    pools_strides=True,
    pins_scales=True,
    title="OpenVINO",
    limits=Limits(
        exact='For such CPUs quantize the weights to 7 bits. keras-qat: --overrides with a rule of "weight_bits": 7. '
        "NNCF: AdvancedQuantizationParameters(overflow_fix=OverflowFix.ENABLE).",
        domains=ONNX_DOMAINS | {"com.microsoft", "org.openvinotoolkit"},
        refuses=frozenset({"QGemm", "QLinearGlobalAveragePool"}),
        newest_opset=28,
        source="https://github.com/openvinotoolkit/openvino/tree/master/src/frontends/onnx/frontend/src/op",
    ),
    judges=("openvino", "onnxruntime"),
)

ENGINE = Engine(
    name="openvino",
    title=OPENVINO.title,
    opens=".onnx and .xml on the CPU",
    suffixes=(".xml", ".onnx"),
    module="openvino",
    packages=("openvino",),
    install="'keras-qat[openvino]'",
    takes_threads=True,
)
