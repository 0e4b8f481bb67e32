"""What each engine reads, beside what it wants quantized: limits as data.

`keras_qat.targets` says where an engine wants Q/DQ pairs; here is what its reader of ONNX files refuses. Measured: with
ONNX Runtime 1.32, OpenVINO 2026.4 and the parser of TensorRT-RTX 1.7, on files of one node and of small networks.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from keras_qat.targets.registry import find_target
from keras_qat.targets.target import Target


@dataclass(frozen=True)
class Limits:
    """What a reader of ONNX files can't do; the default: nothing is known against it.

    Args:
        title: the engine as its makers write it.
        int32_dequantize: whether it takes a DequantizeLinear of int32, as biases have.
        asymmetric: whether a zero-point may be other than 0.
        uint8: whether uint8 tensors are kept as such.
        relu_wants_lowest: whether a ReLU or Clip runs inside the integer kernel before it only where the zero-point
            behind it is the lowest integer.
        floats_shared_int8: whether kernels stay in float beside int8 activations that several nodes read.
        half_wrong: whether it computes Q/DQ files with FP16 scales wrongly on the CPU.
        branch_costs: whether a quantized convolution branch of a residual Add costs speed.
        exact: how uint8 x int8 products, which overflow on x86 without VNNI, are made exact there; empty if none do.
        domains: of operators that it knows, beside those that the file defines itself.
        refuses: types of operators in those domains that it doesn't know.
        newest_opset: the newest operator set that it was seen to read.
        newest_ir: the newest IR version that it was seen to read; `None` if none was refused.
        source: where that is known from.
    """

    title: str
    int32_dequantize: bool = True
    asymmetric: bool = True
    uint8: bool = True
    relu_wants_lowest: bool = False
    floats_shared_int8: bool = False
    half_wrong: bool = False
    branch_costs: bool = False
    exact: str = ""
    domains: frozenset[str] = field(default=frozenset({"", "ai.onnx", "ai.onnx.ml"}))
    refuses: frozenset[str] = field(default=frozenset())
    newest_opset: int | None = None
    newest_ir: int | None = None
    source: str = ""


_ONNX = frozenset({"", "ai.onnx", "ai.onnx.ml"})

_LIMITS = {
    "onnxruntime": Limits(
        "ONNX Runtime",
        relu_wants_lowest=True,
        floats_shared_int8=True,
        half_wrong=True,
        exact="Set session.x64quantprecision to 1 here, as keras-qat does: "
        "options.add_session_config_entry('session.x64quantprecision', '1').",
        domains=_ONNX | {"com.microsoft", "com.microsoft.nchwc", "com.ms.internal.nhwc"},
        newest_opset=28,
        newest_ir=14,
        source="https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html; "
        "onnxruntime/core/optimizer/qdq_transformer/relu_quantizelinear.cc, https://github.com/microsoft/onnxruntime",
    ),
    "openvino": Limits(
        "OpenVINO",
        exact='For such CPUs quantize the weights to 7 bits. keras-qat: --overrides with a rule of "weight_bits": 7. '
        "NNCF: AdvancedQuantizationParameters(overflow_fix=OverflowFix.ENABLE).",
        domains=_ONNX | {"com.microsoft", "org.openvinotoolkit"},
        refuses=frozenset({"QGemm", "QLinearGlobalAveragePool"}),
        newest_opset=28,
        source="https://github.com/openvinotoolkit/openvino/tree/master/src/frontends/onnx/frontend/src/op",
    ),
    "tensorrt": Limits(
        "TensorRT",
        int32_dequantize=False,
        asymmetric=False,
        uint8=False,
        branch_costs=True,
        domains=_ONNX | {"TRT", "trt"},
        refuses=frozenset({"QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear"}),
        newest_opset=28,
        source="https://github.com/onnx/onnx-tensorrt/blob/main/docs/operators.md; "
        "https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/work-quantized-types.html",
    ),
}


@dataclass(frozen=True)
class Engine:
    """An engine that a file is judged for.

    Args:
        target: its table of what it wants quantized.
        limits: what its reader can't do.
    """

    target: Target
    limits: Limits

    @property
    def name(self) -> str:
        """The target's name."""
        return self.target.name


def find_engines(names: Iterable[str | Target] = ()) -> tuple[Engine, ...]:
    """The engines of these targets; of all that are known here if none is named.

    Args:
        names: of targets, or your own. Nothing is known against the reader of a target of your own.

    Raises:
        UserError: there is no target of that name.

    Example:
        >>> [engine.limits.title for engine in find_engines()]
        ['ONNX Runtime', 'OpenVINO', 'TensorRT']
    """
    targets = [find_target(name) for name in tuple(names) or tuple(_LIMITS)]
    return tuple(Engine(target, _LIMITS.get(target.name, Limits(target.name))) for target in targets)
