"""ONNX Runtime on x86: uint8 activations, Q/DQ around every operation.

An operation that lacks a Q/DQ pair on any input or on its output stays out of the integer path, and costs a conversion
on each side. Input and output of a max-pool must share one scale. The classifier's Gemm runs in integers only with an
int32 bias.
"""

from keras_qat.targets.target import ONNX_DOMAINS, Engine, Inputs, Limits, OpRule, Target
from keras_qat.types import OpKind

_SELECTORS = (
    "onnxruntime/core/optimizer/qdq_transformer/selectors_actions/qdq_selector_action_transformer.cc, "
    "https://github.com/microsoft/onnxruntime"
)
_PAGE = "https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html"
_QUANTIZATION = f"{_PAGE}; benchmarks/deploy.py"

_WEIGHTED = OpRule(
    Inputs.ALL,
    output=True,
    weights=True,
    because="ONNX Runtime runs it as one integer kernel between quantized tensors",
    source=_QUANTIZATION,
)
_INTEGER = OpRule(
    Inputs.ALL,
    output=True,
    because="ONNX Runtime has an integer kernel for it between quantized tensors",
    source=_SELECTORS,
)

ONNXRUNTIME = Target(
    name="onnxruntime",
    storage="uint8",
    unsigned_non_negative=True,
    rules={
        OpKind.CONV: _WEIGHTED,
        OpKind.DEPTHWISE_CONV: _WEIGHTED,
        OpKind.DENSE: OpRule(
            Inputs.ALL,
            weights=True,
            because="ONNX Runtime's integer Gemm reads quantized tensors and may write float",
            source=_SELECTORS,
        ),
        OpKind.CONV_TRANSPOSE: _WEIGHTED,
        OpKind.MATMUL: _INTEGER,
        OpKind.RESIZE: _INTEGER,
        OpKind.ADD: _INTEGER,
        OpKind.MULTIPLY: _INTEGER,
        OpKind.CONCAT: _INTEGER,
        OpKind.MAX_POOL: _INTEGER,
        OpKind.AVERAGE_POOL: _INTEGER,
        OpKind.BATCH_NORM: OpRule(
            Inputs.ALL,
            output=True,
            because="it stands between integer kernels, so its input is quantized already",
            source=_SELECTORS,
        ),
    },
    shares_range=frozenset({OpKind.MAX_POOL, OpKind.RESIZE}),
    int32_dense_bias=True,
    rounds_float_kernels=True,
    convolves_transposed=True,
    rounds_softmax=True,
    title="ONNX Runtime",
    limits=Limits(
        relu_wants_lowest=True,
        adds_bias_in_int32=True,
        floats_shared_int8=True,
        half_wrong=True,
        exact="Set session.x64quantprecision to 1 here, as keras-qat does: "
        "options.add_session_config_entry('session.x64quantprecision', '1').",
        domains=ONNX_DOMAINS | {"com.microsoft", "com.microsoft.nchwc", "com.ms.internal.nhwc"},
        newest_opset=28,
        newest_ir=14,
        source=f"{_PAGE}; "
        "onnxruntime/core/optimizer/qdq_transformer/relu_quantizelinear.cc, https://github.com/microsoft/onnxruntime",
    ),
)

CPU_ENGINE = Engine(
    name="onnxruntime",
    title=ONNXRUNTIME.title,
    opens=".onnx on the CPU",
    suffixes=(".onnx",),
    module="onnxruntime",
    packages=("onnxruntime", "onnxruntime-gpu"),
    install="onnxruntime",
    takes_threads=True,
)

CUDA_ENGINE = Engine(
    name="onnxruntime-cuda",
    title="ONNX Runtime on CUDA",
    opens=".onnx on a GPU",
    suffixes=(".onnx",),
    module="onnxruntime",
    packages=("onnxruntime-gpu",),
    install="'onnxruntime-gpu[cuda,cudnn]' in place of onnxruntime",
    needs="cuda provider",
)
