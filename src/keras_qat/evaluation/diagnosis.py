"""What a diagnosis says: frozen figures of each quantized tensor, kernel and output.

    SQNR = 10 log₁₀ (Σ x² / Σ (x - x̂)²)   dB

over all numbers of all images. Each bit is worth 6.02 dB (Bennett 1948, https://doi.org/10.1002/j.1538-7305.1948.tb01340.x):
a tensor that fills the whole range of b bits evenly has about 6.02 b dB.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

from keras_qat.types import QuantSpec

DB_PER_BIT = 20 * math.log10(2)


def sqnr_db(signal: float, noise: float) -> float:
    """The signal-to-quantization-noise ratio in dB.

    Args:
        signal: Σ x².
        noise: Σ (x - x̂)².

    Returns:
        Infinity where there is no noise, so for an all-zero tensor that stays zero; minus infinity for an all-zero
        tensor that doesn't.

    Example:
        >>> sqnr_db(100.0, 1.0), sqnr_db(0.0, 0.0), sqnr_db(0.0, 1.0)
        (20.0, inf, -inf)
    """
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf


def percent(share: float) -> str:
    """A share from 0 to 1 as a report writes it.

    Example:
        >>> percent(0.0), percent(1e-7), percent(0.0214)
        ('0%', '<0.001%', '2.1%')
    """
    return "<0.001%" if 0 < share < 1e-5 else f"{100 * share:.2g}%"  # noqa: PLR2004


@dataclass(frozen=True)
class TensorDiagnosis:
    """A quantized activation tensor.

    Args:
        name: of the tensor, in the float model's graph.
        producer: the node that makes it; a rule about its `output` is a rule about this tensor.
        spec: how it is quantized.
        amax: the range, the largest magnitude kept.
        alone: SQNR in dB of its own rounding and clipping: the float network's x against FakeQuantize(x).
        cumulative: SQNR in dB of the float network's x against the same tensor, after its FakeQuantize, in the whole
            quantized network.
        saturated: share of the float network's numbers that are clipped, 0 to 1.
        clipping: share of the error Σ (x - x̂)² that lies in those, 0 to 1; the rest is rounding.
    """

    name: str
    producer: str
    spec: QuantSpec
    amax: float
    alone: float
    cumulative: float
    saturated: float
    clipping: float

    @property
    def label(self) -> str:
        """What a report calls it."""
        return self.name


@dataclass(frozen=True)
class KernelDiagnosis:
    """The quantized kernel of a layer.

    Args:
        name: of the layer.
        spec: how the kernel is quantized.
        alone: SQNR in dB of what the layer computes, W x against Ŵ x on the float network's x, without bias and
            activation, over all calls of the layer. W is the quantized model's own kernel, which fine-tuning moved.
        weights: SQNR in dB of the numbers W against Ŵ; `None` for a layer that doesn't call its weights `kernel`.
    """

    name: str
    spec: QuantSpec
    alone: float
    weights: float | None

    @property
    def label(self) -> str:
        """What a report calls it; a layer and its output have one name."""
        return f"kernel of {self.name}"


@dataclass(frozen=True)
class OutputDiagnosis:
    """An output of the model.

    Args:
        name: of the tensor, in the float model's graph.
        cumulative: SQNR in dB of the float network's output against the quantized network's.
    """

    name: str
    cumulative: float


@dataclass(frozen=True)
class Diagnosis:
    """All figures of a quantized model, in the order of the graph.

    Args:
        tensors: each quantized activation tensor.
        kernels: each quantized kernel.
        outputs: each output of the model.
        images: how many images they were measured on.
    """

    tensors: tuple[TensorDiagnosis, ...]
    kernels: tuple[KernelDiagnosis, ...]
    outputs: tuple[OutputDiagnosis, ...]
    images: int

    def worst(self, n: int) -> tuple[TensorDiagnosis | KernelDiagnosis, ...]:
        """The `n` tensors and kernels with the lowest SQNR alone, the lowest first: where the error comes from.

        Example:
            >>> kernels = tuple(KernelDiagnosis(name, QuantSpec(), db, None) for name, db in (("a", 40.0), ("b", 9.0)))
            >>> [found.name for found in Diagnosis((), kernels, (), images=1).worst(1)]
            ['b']
        """
        found: list[TensorDiagnosis | KernelDiagnosis] = [*self.tensors, *self.kernels]
        return tuple(sorted(found, key=lambda it: it.alone)[:n])

    def to_dict(self) -> dict[str, Any]:
        """The figures as JSON can hold them; an infinite SQNR is the string `"inf"` or `"-inf"`; `float` reads it."""
        return {key: _finite(value) for key, value in asdict(self).items()}


def _finite(value: Any) -> Any:
    """The value with strings for infinities, which JSON has no numbers for."""
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return str(value) if isinstance(value, float) and math.isinf(value) else value
