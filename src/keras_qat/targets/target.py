"""What a target and an engine are, as data.

A `Target` holds the preferences of one engine: placement, doctor and the choice of a judge ask its table, and no code
branches on its name. An `Engine` holds the facts about a program that runs model files; `keras_qat.runtimes` attaches
the functions.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Literal

from keras_qat.types import OpKind, QuantSpec, Storage

ONNX_DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml"})
"""The domains of ONNX's own operators."""


class Inputs(Enum):
    """Which inputs of an operation the engine wants quantized."""

    NONE = "none"
    ALL = "all"
    ALL_BUT_FUSED_CONV = "all but one conv-fed branch"
    """For a residual Add: the engine adds the result of one convolution inside that convolution's kernel."""


@dataclass(frozen=True)
class OpRule:
    """How the engine wants one kind of operation.

    Args:
        inputs: which of its inputs are quantized.
        output: whether it needs a quantized output to run in integers.
        weights: whether its kernel is quantized.
        because: the reason that users read.
        source: where that is known from: the vendor's documentation or source, or a measurement in `benchmarks/`.
    """

    inputs: Inputs = Inputs.NONE
    output: bool = False
    weights: bool = False
    because: str = "the engine has no integer kernel for it"
    source: str = ""


@dataclass(frozen=True)
class Limits:
    """What an engine's reader of ONNX files can't do. By default no limit is known.

    Measured with ONNX Runtime 1.32, OpenVINO 2026.4 and the parser of TensorRT-RTX 1.7, on files of one node and of
    small networks.

    Args:
        int32_dequantize: whether it takes a DequantizeLinear of int32, as biases have.
        asymmetric: whether a zero-point may be other than 0.
        uint8: whether uint8 tensors are kept as such.
        relu_wants_lowest: whether a ReLU or Clip runs inside the integer kernel before it only if the zero-point
            behind it is the lowest integer.
        adds_bias_in_int32: whether it rounds the bias of an integer kernel to steps of s_x · s_w in 32 bits, and
            computes something else without a message if the bias doesn't fit.
        floats_shared_int8: whether kernels stay in float beside int8 activations that several nodes read.
        half_wrong: whether it computes Q/DQ files with FP16 scales wrongly on the CPU.
        branch_costs: whether a quantized convolution branch of a residual Add costs speed.
        exact: how to make uint8 x int8 products exact, which overflow on x86 without VNNI; "" if none overflow.
        domains: the domains of operators that it knows, beside those that the file defines itself.
        refuses: the types of operators in those domains that it doesn't know.
        newest_opset: the newest operator set that it was seen to read.
        newest_ir: the newest IR version that it was seen to read; `None` if none was refused.
        source: where that is known from.
    """

    int32_dequantize: bool = True
    asymmetric: bool = True
    uint8: bool = True
    relu_wants_lowest: bool = False
    adds_bias_in_int32: bool = False
    floats_shared_int8: bool = False
    half_wrong: bool = False
    branch_costs: bool = False
    exact: str = ""
    domains: frozenset[str] = ONNX_DOMAINS
    refuses: frozenset[str] = frozenset()
    newest_opset: int | None = None
    newest_ir: int | None = None
    source: str = ""


@dataclass(frozen=True)
class Target:
    """The table of one engine.

    Args:
        name: as in `target="onnxruntime"`.
        storage: integer type of activations in the file.
        unsigned_non_negative: whether a tensor that can't be negative uses all 256 steps (`uint8`, zero-point 0).
        rules: the rule of each kind of operation; a kind without one stays float.
        fused_activations: activations that run inside the operation before them, so that no Q/DQ may part them.
        shares_range: kinds whose quantized inputs and output must have one scale.
        int32_dense_bias: whether the bias of a quantized Dense is stored as int32 behind a DequantizeLinear.
        rounds_float_kernels: whether the engine rounds a float kernel behind a quantized input to int8 by itself,
            unless its bias is stored as int32, too.
        pools_strides: whether the stride of quantized 1x1 convolutions is taken out into a max-pool of single pixels.
        pins_scales: whether operations that change no number keep the engine from moving scales where it would compute
            something else.
        rounds_softmax: whether its integer softmax computes something else than the file says, so that a softmax is
            kept in float.
        convolves_transposed: whether a quantized transposed convolution is computed as a convolution whose output
            channels are pixels, for an engine with integer kernels for convolutions only.
        title: the engine as its makers write it; the name if not given.
        limits: what the engine's reader of ONNX files can't do.
        judges: names of the engines that may judge its files, best first. A Q/DQ file means the same in ONNX Runtime,
            which is only slower.
    """

    name: str
    storage: Storage
    unsigned_non_negative: bool
    rules: Mapping[OpKind, OpRule]
    fused_activations: frozenset[OpKind] = field(default=frozenset({OpKind.RELU}))
    shares_range: frozenset[OpKind] = field(default=frozenset())
    int32_dense_bias: bool = False
    rounds_float_kernels: bool = False
    pools_strides: bool = False
    pins_scales: bool = False
    rounds_softmax: bool = False
    convolves_transposed: bool = False
    title: str = ""
    limits: Limits = Limits()
    judges: tuple[str, ...] = ("onnxruntime",)

    def __post_init__(self) -> None:
        """Fill in the title."""
        object.__setattr__(self, "title", self.title or self.name)

    def rule(self, kind: OpKind) -> OpRule:
        """The rule for a kind of operation."""
        return self.rules.get(kind, OpRule())

    def activation_spec(self, *, non_negative: bool) -> QuantSpec:
        """How this target quantizes an activation tensor.

        Args:
            non_negative: whether the tensor can't be negative.
        """
        signed = not (non_negative and self.unsigned_non_negative)
        return QuantSpec(signed=signed, storage=self.storage)


Need = Literal["nothing", "backend", "gpu", "cuda provider"]
"""What must be there beside an engine's package: a backend of Keras, an NVIDIA GPU with cuda-python, or an ONNX Runtime
that was built with CUDA."""


@dataclass(frozen=True)
class Engine:
    """One engine.

    Args:
        name: as in `--engine`.
        title: as its makers write it.
        opens: what it runs and where, in words.
        suffixes: the suffixes of the files that it opens; files that it builds get the first. Empty if it opens
            folders.
        module: the Python module that is imported to run it.
        packages: the packages any of which provides that module.
        install: the arguments of `pip install`.
        needs: what must be there beside the package to run it.
        magic: the first bytes of its files, if another engine's have the same suffix.
        takes_threads: whether the number of threads can be set for one model.
        ahead_of_time: whether it builds files without the GPU that they are for. TensorRT times kernels on the GPU of
            the machine; TensorRT-RTX chooses them when the file is loaded.
        runs_code: whether opening its files runs code that is in them, so that they must be trusted.
    """

    name: str
    title: str
    opens: str
    suffixes: tuple[str, ...]
    module: str
    packages: tuple[str, ...]
    install: str
    needs: Need = "nothing"
    magic: bytes = b""
    takes_threads: bool = False
    ahead_of_time: bool = False
    runs_code: bool = False

    def accepts(self, path: Path) -> bool:
        """Whether a path is a file of its kind, or a folder if it opens folders."""
        folder = path.is_dir()
        return not folder and path.suffix in self.suffixes if self.suffixes else folder
