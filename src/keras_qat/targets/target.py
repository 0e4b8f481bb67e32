"""What a target is: one engine's preferences as data.

Placement asks the table; no code branches on a target's name.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from keras_qat.types import OpKind, QuantSpec, Storage


class Inputs(Enum):
    """Which inputs of an operation the engine wants quantized."""

    NONE = "none"
    ALL = "all"
    ALL_BUT_FUSED_CONV = "all but one conv-fed branch"
    """A residual Add: the engine adds one convolution's result inside that convolution's kernel."""


@dataclass(frozen=True)
class OpRule:
    """How the engine wants one kind of operation.

    Args:
        inputs: which of its inputs are quantized.
        output: whether it needs a quantized output to run in integers.
        weights: whether its kernel is quantized.
        because: the reason a user reads.
        source: where that is known from: the vendor's documentation or source, or a measurement in `benchmarks/`.
    """

    inputs: Inputs = Inputs.NONE
    output: bool = False
    weights: bool = False
    because: str = "the engine has no integer kernel for it"
    source: str = ""


@dataclass(frozen=True)
class Target:
    """One engine's table.

    Args:
        name: as in `target="onnxruntime"`.
        storage: integer type of activations in the file.
        unsigned_non_negative: a tensor that can't be negative uses all 256 steps (`uint8`, zero-point 0).
        rules: the rule of each kind of operation; a kind without one stays float.
        fused_activations: activations that run inside the operation before them, so no Q/DQ may part them.
        shares_range: kinds whose quantized inputs and output must have one scale.
        int32_dense_bias: store the bias of a quantized Dense as int32 behind a DequantizeLinear.
        pools_strides: take the stride of quantized 1x1 convolutions out into a max-pool of single pixels.
    """

    name: str
    storage: Storage
    unsigned_non_negative: bool
    rules: Mapping[OpKind, OpRule]
    fused_activations: frozenset[OpKind] = field(default=frozenset({OpKind.RELU}))
    shares_range: frozenset[OpKind] = field(default=frozenset())
    int32_dense_bias: bool = False
    pools_strides: bool = False

    def rule(self, kind: OpKind) -> OpRule:
        """The rule for a kind of operation."""
        return self.rules.get(kind, OpRule())

    def activation_spec(self, *, non_negative: bool) -> QuantSpec:
        """How this target quantizes an activation tensor."""
        signed = not (non_negative and self.unsigned_non_negative)
        return QuantSpec(signed=signed, storage=self.storage)
