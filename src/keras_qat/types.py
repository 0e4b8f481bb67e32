"""The types that all stages share: frozen values, without an import of any framework.

Uniform symmetric quantization maps a real number x to an integer q and back:

    s = a / q_max            scale, where a is the largest magnitude kept ("amax")
    q = clip(round(x / s) + z, q_min + z, q_max + z)
    x̂ = s · (q - z)

with round-half-to-even, as in ONNX `QuantizeLinear` (https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

UNLABELLED = -1
"""The label of an image whose class is unknown."""

BITS = range(2, 9)
"""The widths of quantized integers."""

_CHANNELS = ((3, 3), (1, 1))
"""Numbers of (divisors, offsets) of a normalization: for RGB, and for gray."""

Storage = Literal["int8", "uint8"]
"""The integer type of a quantized tensor in an exported file."""

Precision = Literal["fp32", "fp16"]
"""The floating-point type of whatever is not quantized in an exported file."""

IoDtype = Literal["float32", "float16"]
"""The element type of the inputs and outputs of an exported file."""

RangeMode = Literal["fixed", "ema", "learned"]
"""How training updates activation ranges: not at all, by a moving average of each batch's largest magnitude, by LSQ."""

Monitor = Literal["loss", "accuracy"]
"""How the best epoch is chosen: by the lowest selection loss, or by the highest top-1 accuracy and then the loss."""

TrainingPrecision = Literal["float32", "mixed_bfloat16"]
"""The Keras dtype policy of all layers but the last. Weights, ranges and rounding are float32 in both cases."""

ScoreMeaning = Literal["classes", "probability", "logit"]
"""What a classifier's scores are: one per class, or a single score for the second of two classes, after the sigmoid
("probability") or before it ("logit")."""

TaskKind = Literal["classification", "segmentation", "regression"]
"""What an output says: the class of the whole input, the class of each of its positions, or numbers of another meaning,
such as coordinates, a reconstruction or an embedding."""

AugmentationName = Literal["none", "flip", "crop"]
"""How training images are augmented: not at all, by random mirroring, or by random crops and mirroring."""


BASELINE, PTQ, QAT = "Baseline", "PTQ", "QAT"
"""The variants of a run: the float model, the quantized one, and the fine-tuned one. Tables name their rows so."""


@dataclass(frozen=True)
class OutputTask:
    """What one output of a model says, which decides how it is judged and how it is trained.

    Args:
        output: name of the output.
        kind: what it says.
        scores: what its scores mean, along its last axis; `None` for a regression.

    Raises:
        ValueError: If `scores` are given for a regression, or not given for another task.

    Example:
        >>> OutputTask("mask", "segmentation", "probability").kind
        'segmentation'
    """

    output: str
    kind: TaskKind
    scores: ScoreMeaning | None = None

    def __post_init__(self) -> None:
        """Check that the meaning of scores is known where there are scores."""
        if (self.scores is None) != (self.kind == "regression"):
            raise ValueError(
                "Classes have scores, whose meaning must be known, and a regression has none. "
                f"Received: kind={self.kind!r}, scores={self.scores!r}."
            )


def is_classifier(tasks: Sequence[OutputTask]) -> bool:
    """Whether a model has one output, which gives the class of its whole input.

    Example:
        >>> is_classifier([OutputTask("scores", "classification", "classes")]), is_classifier([])
        (True, False)
    """
    return [task.kind for task in tasks] == ["classification"]


class OpKind(str, Enum):
    """What a node of the graph computes, as far as quantization needs to know."""

    INPUT = "input"
    CONV = "conv"
    DEPTHWISE_CONV = "depthwise conv"
    CONV_TRANSPOSE = "transposed conv"
    DENSE = "dense"
    MATMUL = "matmul"
    BATCH_NORM = "batch norm"
    SCALE = "scale"
    RELU = "relu"
    ACTIVATION = "activation"
    ADD = "add"
    MULTIPLY = "multiply"
    CONCAT = "concat"
    MAX_POOL = "max pool"
    AVERAGE_POOL = "average pool"
    ZERO_PAD = "zero pad"
    RESIZE = "resize"
    RESHAPE = "reshape"
    IDENTITY = "identity"
    FAKE_QUANTIZE = "fake quantize"
    OTHER = "other"

    def __str__(self) -> str:
        """The name, as reasons and messages use it."""
        return self.value


@dataclass(frozen=True)
class QuantSpec:
    """The integers of one quantized tensor, without its range.

    Args:
        bits: width of the integers, 2 to 8.
        signed: whether negative values are represented. A non-negative tensor gains one bit if it is unsigned.
        narrow: whether the most negative integer is left out, which makes the range symmetric (for weights).
        axis: the channel axis of a per-channel scale, in the Keras layout of the tensor; `None` for one scale per
            tensor.
        storage: the integer type in the exported file. A signed tensor in `uint8` has zero-point 128 and represents
            exactly the same values as `int8` with zero-point 0.

    Raises:
        ValueError: If `bits` is not from 2 to 8, or an unsigned 8-bit tensor is to be stored in int8.

    Example:
        >>> spec = QuantSpec(signed=False, storage="uint8")
        >>> spec.q_min, spec.q_max, spec.zero_point
        (0, 255, 0)
    """

    bits: int = 8
    signed: bool = True
    narrow: bool = False
    axis: int | None = None
    storage: Storage = "int8"

    def __post_init__(self) -> None:
        """Check that the storage type can hold the integers."""
        if type(self.bits) is not int or self.bits not in BITS:
            raise ValueError(f"`bits` must be from 2 to 8. Received: bits={self.bits}")
        if not self.signed and self.storage == "int8" and self.bits == max(BITS):
            raise ValueError(
                "An unsigned 8-bit tensor doesn't fit int8. Received: signed=False, storage='int8'. "
                "Use storage='uint8', or signed=True."
            )

    @property
    def q_max(self) -> int:
        """The largest integer, without the zero-point."""
        return (1 << self.bits - self.signed) - 1

    @property
    def q_min(self) -> int:
        """The smallest integer, without the zero-point."""
        if not self.signed:
            return 0
        return -self.q_max if self.narrow else -self.q_max - 1

    @property
    def zero_point(self) -> int:
        """The stored integer that represents 0.0."""
        return 128 if self.signed and self.storage == "uint8" else 0


@dataclass(frozen=True)
class Normalization:
    """The normalization of pixels before a network reads them.

        y = x' / divisor - offset,   where x' holds RGB, BGR or gray values from 0 to 255

    Args:
        reverse_channels: whether x' is BGR.
        divisor: one number per channel of x': three, or one for gray.
        offset: one number per channel of x', likewise.

    Raises:
        ValueError: If the divisors and offsets are not three each or one each, gray channels are to be reversed, a
            number is not finite, or a divisor is 0.

    Example:
        >>> Normalization(reverse_channels=False, divisor=(255.0, 255.0, 255.0), offset=(0.5, 0.5, 0.5)).identity
        False
    """

    reverse_channels: bool
    divisor: tuple[float, ...]
    offset: tuple[float, ...]

    def __post_init__(self) -> None:
        """Check the number of channels, and that the result is finite."""
        if (len(self.divisor), len(self.offset)) not in _CHANNELS or (self.reverse_channels and len(self.divisor) == 1):
            raise ValueError(
                "Divisors and offsets must be three each, or one each for gray, which has no order to reverse. "
                f"Received: divisor={self.divisor}, offset={self.offset}, reverse_channels={self.reverse_channels}"
            )
        if not all(math.isfinite(number) for number in (*self.divisor, *self.offset)) or not all(self.divisor):
            raise ValueError(
                "Divisors must be finite and not 0, offsets finite. "
                f"Received: divisor={self.divisor}, offset={self.offset}"
            )

    @property
    def channels(self) -> int:
        """The number of channels: 3, or 1 for gray."""
        return len(self.divisor)

    @property
    def divides(self) -> bool:
        """Whether any divisor is not 1."""
        return any(d != 1 for d in self.divisor)

    @property
    def shifts(self) -> bool:
        """Whether any offset is not 0."""
        return any(o != 0 for o in self.offset)

    @property
    def identity(self) -> bool:
        """Whether the network reads RGB or gray values from 0 to 255 as they are."""
        return not (self.reverse_channels or self.divides or self.shifts)


@dataclass(frozen=True)
class TensorRange:
    """The calibrated range of one activation tensor.

    Args:
        amax: the largest magnitude kept; values beyond it saturate.
        method: the observer that chose it, such as `"mse"`.
        images: the number of images it was computed from.
        summary: percentiles of the magnitudes, such as {"p50": 0.3, "p99.9": 4.1, "max": 6.0}; `None` where they were
            not counted.
        histogram: the shares of the magnitudes in equal bins from 0 to the largest; `None` likewise.
    """

    amax: float
    method: str
    images: int
    summary: Mapping[str, float] | None = field(default=None, hash=False, repr=False)
    histogram: tuple[float, ...] | None = field(default=None, hash=False, repr=False)


@dataclass(frozen=True)
class EdgeDecision:
    """Whether one edge of the graph is quantized, and why.

    Args:
        tensor: name of the tensor on this edge.
        consumer: name of the node that reads it, or `"/output"` where it leaves the model.
        index: which input of the consumer it is, counted from 0.
        quantized: whether a Q/DQ pair stands on this edge.
        reason: why, in words.
    """

    tensor: str
    consumer: str
    index: int
    quantized: bool
    reason: str


@dataclass(frozen=True)
class WeightDecision:
    """Whether the kernel of one layer is quantized, and why.

    Args:
        layer: name of the Keras layer.
        spec: how its kernel is quantized, or `None` where it stays float.
        reason: why, in words.
    """

    layer: str
    spec: QuantSpec | None
    reason: str


@dataclass(frozen=True)
class QuantizedTensor:
    """A tensor with a Q/DQ pair, which all consumers that read it quantized share.

    Args:
        tensor: name of the tensor.
        spec: how it is quantized.
        range_of: name of the tensor whose range it takes: its own, except where an engine requires the inputs and the
            output of an operation to share one scale (max-pool, concatenation).
        joined: names of the other tensors whose values that range must cover.
    """

    tensor: str
    spec: QuantSpec
    range_of: str
    joined: tuple[str, ...] = ()


@dataclass(frozen=True)
class Kernel:
    """Nodes that an engine runs as one kernel.

    Args:
        nodes: their names, in topological order.
        kinds: what each computes.
    """

    nodes: tuple[str, ...]
    kinds: tuple[OpKind, ...]


@dataclass(frozen=True)
class Placement:
    """Where every Q/DQ pair goes for one target: the plan that transform, export and verification follow.

    Args:
        target: name of the target.
        tensors: the tensors with a Q/DQ pair, in topological order.
        edges: the decision on every edge of the graph.
        weights: the decision on every layer with a kernel.
        kernels: the fused kernels of the engine, which together hold every node.
    """

    target: str
    tensors: tuple[QuantizedTensor, ...]
    edges: tuple[EdgeDecision, ...]
    weights: tuple[WeightDecision, ...]
    kernels: tuple[Kernel, ...] = ()

    @property
    def quantized_edges(self) -> frozenset[tuple[str, str, int]]:
        """The (tensor, consumer, index) of each edge with a Q/DQ pair."""
        return frozenset((e.tensor, e.consumer, e.index) for e in self.edges if e.quantized)

    @property
    def observed(self) -> tuple[str, ...]:
        """Names of the ranges that calibration must choose, each once, in topological order."""
        return tuple(dict.fromkeys(t.range_of for t in self.tensors))

    @property
    def sources(self) -> Mapping[str, tuple[str, ...]]:
        """The tensors whose values determine each range, by the name of the range."""
        return {t.range_of: (t.range_of, *t.joined) for t in self.tensors}

    @property
    def specs(self) -> Mapping[str, QuantSpec]:
        """The spec of each quantized tensor, by the name of the tensor."""
        return {t.tensor: t.spec for t in self.tensors}
