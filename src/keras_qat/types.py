"""The vocabulary that every stage shares: frozen values, no framework imports.

Uniform symmetric quantization maps a real number x to an integer q and back:

    s = a / q_max            scale, where a is the largest magnitude kept ("amax")
    q = clip(round(x / s) + z, q_min + z, q_max + z)
    x̂ = s · (q - z)

with round-half-to-even, as in ONNX `QuantizeLinear` (https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

Storage = Literal["int8", "uint8"]

UNLABELLED = -1
"""Stands for the label of an image whose class nobody knows."""

Precision = Literal["fp32", "fp16"]
"""The floating-point type of what a file doesn't quantize."""

IoDtype = Literal["float32", "float16"]
"""The element type of a file's inputs and outputs."""

RangeMode = Literal["fixed", "ema", "learned"]
"""What training does to the ranges of activations: nothing, a moving average of each batch's largest magnitude, LSQ."""

Monitor = Literal["loss", "accuracy"]
"""What the best epoch is chosen by: the lowest selection loss, or the highest top-1 accuracy and then the loss."""

TrainingPrecision = Literal["float32", "mixed_bfloat16"]
"""Keras's dtype policy of all layers but the last. Weights, ranges and rounding are float32 in any case."""

ScoreMeaning = Literal["classes", "probability", "logit"]
"""What a classifier's scores are: one for each class; or a single one, of the second of two classes, behind its sigmoid
or before it."""

AugmentationName = Literal["none", "flip", "crop"]
"""How training images are varied: not, mirrored, or cut out at random and mirrored."""


BASELINE, PTQ, QAT = "Baseline", "PTQ", "QAT"
"""The variants of a run: the float model, the quantized one, and the fine-tuned one. Tables name their rows so."""


class OpKind(str, Enum):
    """What a node of the graph computes, as far as quantization is concerned."""

    INPUT = "input"
    CONV = "conv"
    DEPTHWISE_CONV = "depthwise conv"
    DENSE = "dense"
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
    RESHAPE = "reshape"
    IDENTITY = "identity"
    FAKE_QUANTIZE = "fake quantize"
    OTHER = "other"

    def __str__(self) -> str:
        """The name as it reads in a reason."""
        return self.value


@dataclass(frozen=True)
class QuantSpec:
    """How one tensor is quantized; the numbers, not the range.

    Args:
        bits: width of the integer, 2 to 8.
        signed: whether negative numbers are kept. An unsigned spec gains one bit for a non-negative tensor.
        narrow: leave out the most negative integer, so that the sign can be flipped (weights).
        axis: the channel axis of a per-channel scale (`None`: one scale for the tensor). It counts in the
            Keras layout of the tensor.
        storage: the integer type in the exported file. A signed tensor in `uint8` has zero-point 128 and is
            number for number the same as `int8` with zero-point 0.

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
        """Refuse widths that the storage types can't hold."""
        if not 2 <= self.bits <= 8:  # noqa: PLR2004
            raise ValueError(f"`bits` must be from 2 to 8. Received: bits={self.bits}")
        if not self.signed and self.storage == "int8" and self.bits == 8:  # noqa: PLR2004
            raise ValueError(
                "An unsigned 8-bit tensor doesn't fit int8. Received: signed=False, storage='int8'. "
                "Use storage='uint8', or signed=True."
            )

    @property
    def q_max(self) -> int:
        """The largest integer, zero-point not counted."""
        return (1 << self.bits - self.signed) - 1

    @property
    def q_min(self) -> int:
        """The smallest integer, zero-point not counted."""
        if not self.signed:
            return 0
        return -self.q_max if self.narrow else -self.q_max - 1

    @property
    def zero_point(self) -> int:
        """The stored integer that stands for 0.0."""
        return 128 if self.signed and self.storage == "uint8" else 0


_CHANNELS = ((3, 3), (1, 1))
"""Divisors and offsets of RGB, and of gray."""


@dataclass(frozen=True)
class Normalization:
    """From pixels to the numbers that a network reads.

        y = x' / divisor - offset,   with x' the RGB values 0 to 255, or the same as BGR, or gray values.

    Args:
        reverse_channels: x' is BGR.
        divisor: of each channel of x': three numbers, or one for gray.
        offset: of each channel of x', likewise.

    Example:
        >>> Normalization(reverse_channels=False, divisor=(255.0, 255.0, 255.0), offset=(0.5, 0.5, 0.5)).identity
        False
    """

    reverse_channels: bool
    divisor: tuple[float, ...]
    offset: tuple[float, ...]

    def __post_init__(self) -> None:
        """Refuse numbers that give no numbers."""
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
        """How many the pixels have: 3, or 1 for gray."""
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
        """Whether the network reads the pixels as they are."""
        return not (self.reverse_channels or self.divides or self.shifts)


@dataclass(frozen=True)
class TensorRange:
    """The calibrated range of one activation tensor.

    Args:
        amax: the largest magnitude kept; what lies beyond it saturates.
        method: the observer that chose it, such as `"mse"`.
        images: how many images it was computed from.
        summary: what the magnitudes look like, such as {"p50": 0.3, "p99.9": 4.1, "max": 6.0}; `None` where that wasn't
            counted.
        histogram: the shares of the magnitudes in equal bins from 0 to the largest; `None` likewise.
    """

    amax: float
    method: str
    images: int
    summary: Mapping[str, float] | None = field(default=None, hash=False, repr=False)
    histogram: tuple[float, ...] | None = field(default=None, hash=False, repr=False)


@dataclass(frozen=True)
class EdgeDecision:
    """One edge of the graph, quantized or not, and why.

    Args:
        tensor: name of the tensor that flows.
        consumer: name of the node that reads it, or `"/output"` where it leaves the model.
        index: which input of the consumer it is.
        quantized: whether a Q/DQ pair stands on this edge.
        reason: why, for a human.
    """

    tensor: str
    consumer: str
    index: int
    quantized: bool
    reason: str


@dataclass(frozen=True)
class WeightDecision:
    """One layer with weights, quantized or not, and why.

    Args:
        layer: name of the Keras layer.
        spec: how its kernel is quantized, or `None`.
        reason: why, for a human.
    """

    layer: str
    spec: QuantSpec | None
    reason: str


@dataclass(frozen=True)
class QuantizedTensor:
    """A tensor that carries a Q/DQ pair, shared by all the consumers that read it quantized.

    Args:
        tensor: name of the tensor.
        spec: how it is quantized.
        range_of: the tensor whose range it takes. Itself, but where an engine demands that inputs and output of an
            operation share one scale (max-pool, concatenation).
        joined: the other tensors whose numbers that range must hold as well.
    """

    tensor: str
    spec: QuantSpec
    range_of: str
    joined: tuple[str, ...] = ()


@dataclass(frozen=True)
class Kernel:
    """Nodes that the engine runs as one, in order of flow: their names, and what each computes."""

    nodes: tuple[str, ...]
    kinds: tuple[OpKind, ...]


@dataclass(frozen=True)
class Placement:
    """Where every Q/DQ pair goes for one target: the plan that transform, export and verification follow."""

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
        """Names of the ranges that calibration must choose, in graph order, each once."""
        return tuple(dict.fromkeys(t.range_of for t in self.tensors))

    @property
    def sources(self) -> Mapping[str, tuple[str, ...]]:
        """The tensors whose numbers choose each range, by the name of the range."""
        return {t.range_of: (t.range_of, *t.joined) for t in self.tensors}

    @property
    def specs(self) -> Mapping[str, QuantSpec]:
        """The spec of each quantized tensor, by its name."""
        return {t.tensor: t.spec for t in self.tensors}
