"""Where does quantization lose accuracy? The error of every quantized tensor and kernel, alone and accumulated.

A quantized network has a single end-to-end error, which does not show which of its hundred roundings is the cause.
Each of them is therefore measured by itself, on the float network's numbers: a range that clips, a range inflated by
outliers or a kernel that int8 cannot hold shows at its own tensor. The accumulated error beside it shows what the
layers make of it. The measure is

    SQNR = 10 log₁₀ (Σ x² / Σ (x - x̂)²)   dB

over all numbers of all images. Each bit is worth 6.02 dB (Bennett 1948,
https://doi.org/10.1002/j.1538-7305.1948.tb01340.x): a tensor that evenly fills the whole range of b bits has about
6.02 b dB.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

import keras
import numpy as np

from keras_qat.calibration import kernel_calls, read_batches, require_made_of
from keras_qat.errors import DataError, UnsupportedModelError, UserError
from keras_qat.evaluation.error_probe import KERNELS, OUTPUTS, TENSORS, build_error_probe, fake_quantize_nodes
from keras_qat.graph import Node, Trace, trace
from keras_qat.types import QuantSpec

DB_PER_BIT = 20 * math.log10(2)


def sqnr_db(signal: float, noise: float) -> float:
    """Return the signal-to-quantization-noise ratio in dB.

    Args:
        signal: Σ x².
        noise: Σ (x - x̂)².

    Returns:
        The ratio. Infinity if there is no noise, also for an all-zero tensor that stays zero; minus infinity for an
        all-zero tensor that does not.

    Example:
        >>> sqnr_db(100.0, 1.0), sqnr_db(0.0, 0.0), sqnr_db(0.0, 1.0)
        (20.0, inf, -inf)
    """
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf


def percent(share: float) -> str:
    """Return a share from 0 to 1 as a report writes it.

    Example:
        >>> percent(0.0), percent(1e-7), percent(0.0214)
        ('0%', '<0.001%', '2.1%')
    """
    return "<0.001%" if 0 < share < 1e-5 else f"{100 * share:.2g}%"  # noqa: PLR2004


@dataclass(frozen=True)
class TensorDiagnosis:
    """The figures of a quantized activation tensor.

    Args:
        name: The name of the tensor in the float model's graph.
        producer: The node that computes it. A rule about the `output` of this node is a rule about this tensor.
        spec: How it is quantized.
        amax: The range, the largest magnitude kept.
        alone: The SQNR of its own rounding and clipping in dB: the float network's x against FakeQuantize(x).
        cumulative: The SQNR in dB of the float network's x against the same tensor, after its FakeQuantize, in the
            whole quantized network.
        saturated: The share of the float network's numbers that are clipped, 0 to 1.
        clipping: The share of the error Σ (x - x̂)² that these numbers have, 0 to 1. The rest is rounding.
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
        """The name of the tensor in a report."""
        return self.name


@dataclass(frozen=True)
class KernelDiagnosis:
    """The figures of a layer's quantized kernel.

    Args:
        name: The name of the layer.
        spec: How the kernel is quantized.
        alone: The SQNR in dB of what the layer computes, W x against Ŵ x on the float network's x, without bias and
            activation, over all calls of the layer. W is the quantized model's own kernel, which fine-tuning may have
            changed.
        weights: The SQNR in dB of the numbers W against Ŵ; `None` for a layer that has no attribute `kernel`.
    """

    name: str
    spec: QuantSpec
    alone: float
    weights: float | None

    @property
    def label(self) -> str:
        """The name of the kernel in a report. The layer's own name is also that of its output."""
        return f"kernel of {self.name}"


@dataclass(frozen=True)
class OutputDiagnosis:
    """The figures of an output of the model.

    Args:
        name: The name of the tensor in the float model's graph.
        cumulative: The SQNR in dB of the float network's output against the quantized network's.
    """

    name: str
    cumulative: float


@dataclass(frozen=True)
class Diagnosis:
    """All figures of a quantized model, in the order of the graph.

    Args:
        tensors: The figures of each quantized activation tensor.
        kernels: The figures of each quantized kernel.
        outputs: The figures of each output of the model.
        images: The number of images that they were measured on.
    """

    tensors: tuple[TensorDiagnosis, ...]
    kernels: tuple[KernelDiagnosis, ...]
    outputs: tuple[OutputDiagnosis, ...]
    images: int

    def worst(self, n: int) -> tuple[TensorDiagnosis | KernelDiagnosis, ...]:
        """Return the `n` tensors and kernels with the lowest SQNR alone, the lowest first: where the error comes from.

        Example:
            >>> kernels = tuple(KernelDiagnosis(name, QuantSpec(), db, None) for name, db in (("a", 40.0), ("b", 9.0)))
            >>> [kernel.name for kernel in Diagnosis((), kernels, (), images=1).worst(1)]
            ['b']
        """
        diagnosed: list[TensorDiagnosis | KernelDiagnosis] = [*self.tensors, *self.kernels]
        return tuple(sorted(diagnosed, key=lambda figures: figures.alone)[:n])

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as JSON types. An infinite SQNR is the string `"inf"` or `"-inf"`, which `float` reads."""
        return {key: _finite(value) for key, value in asdict(self).items()}


def _finite(value: Any) -> Any:
    """Return the value with strings in place of infinities, for which JSON has no numbers."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return str(value) if isinstance(value, float) and math.isinf(value) else value


def diagnose(
    model: Any, quantized: Any, batches: Any, *, images: int | None = None, total: int | None = None
) -> Diagnosis:
    """Measure the error of every quantized tensor, kernel and output.

    One streaming pass: the sums are computed in the compiled forward pass, in float64 (float32 on JAX). Memory does not
    grow with the number of images, and neither their order nor their batches matter.

    Args:
        model: The float model. It is not changed.
        quantized: The model that `apply_placement` made of it, whether corrected or fine-tuned since or not. It is not
            changed.
        batches: Images, as for `calibrate`. A few dozen are enough, preferably ones that calibration did not see. Both
            networks run at once, so use batches of half the size.
        images: The exact number of images to read; all by default.
        total: The number of batches, for the progress bar, if the data cannot tell it.

    Returns:
        The figures, in the order of the graph. `advise` says what to try.

    Raises:
        DataError: If there are no images, or if they do not fit the model's input.
        UnsupportedModelError: If a tensor or an output is NaN or infinite. The first one is named.
        UserError: If nothing is quantized in `quantized`, or if it was made of another model.

    Example:
        >>> from keras_qat import apply_placement, calibrate, plan
        >>> x = keras.Input((8, 8, 3), name="image")
        >>> model = keras.Model(x, keras.layers.Conv2D(4, 3, name="conv")(x))
        >>> images = [np.random.default_rng(0).normal(size=(16, 8, 8, 3)).astype("float32")]
        >>> placement = plan(trace(model).graph, "tensorrt")
        >>> quantized = apply_placement(model, placement, calibrate(model, placement, images))
        >>> diagnosis = diagnose(model, quantized, images)
        >>> [tensor.name for tensor in diagnosis.tensors], [kernel.name for kernel in diagnosis.kernels]
        (['image'], ['conv'])
        >>> 35 < diagnosis.tensors[0].alone < 45
        True
    """
    exact, simulated = trace(model), trace(quantized)
    fakes, calls = fake_quantize_nodes(simulated), kernel_calls(simulated)
    if not fakes and not calls:
        raise UserError(
            f"There is nothing quantized to diagnose. Received: the model {simulated.name!r}. "
            "Give the float model, then what `apply_placement` made of it."
        )
    require_made_of(exact, simulated)
    probe = build_error_probe(exact, simulated)
    sums, seen = None, 0
    for x in read_batches(batches, model, images=images, description="diagnosing", total=total):
        seen += len(x[0])
        batch_sums = keras.tree.map_structure(_float64, probe.predict_on_batch(x))
        sums = batch_sums if sums is None else keras.tree.map_structure(np.add, sums, batch_sums)
    if sums is None:
        raise DataError("There is nothing to diagnose on. Received: 0 images. Give at least one batch.")
    return Diagnosis(
        tensors=tuple(_tensor(exact, simulated, *pair) for pair in zip(fakes, sums[TENSORS], strict=True)),
        kernels=tuple(_kernel(simulated, *pair) for pair in zip(calls.values(), sums[KERNELS], strict=True)),
        outputs=tuple(
            OutputDiagnosis(name, _sqnr(name, errors))
            for name, errors in zip(exact.graph.outputs, sums[OUTPUTS], strict=True)
        ),
        images=seen,
    )


def _float64(sums: Any) -> np.ndarray:
    return np.asarray(sums, np.float64)


def _tensor(exact: Trace, simulated: Trace, node: Node, sums: Any) -> TensorDiagnosis:
    (name,), fake = node.inputs, simulated.calls[node.name].operation
    alone, cumulative, (beyond, numbers, beyond_error) = sums
    return TensorDiagnosis(
        name=name,
        producer=exact.graph.producer(name).name,
        spec=fake.spec,
        amax=float(fake.amax),
        alone=_sqnr(name, alone),
        cumulative=_sqnr(name, cumulative),
        saturated=float(beyond / numbers),
        clipping=float(beyond_error / alone[1]) if alone[1] else 0.0,
    )


def _kernel(simulated: Trace, nodes: tuple[Node, ...], sums: Any) -> KernelDiagnosis:
    name, layer = nodes[0].layer, simulated.calls[nodes[0].name].operation
    kernel = getattr(layer, "kernel", None)
    return KernelDiagnosis(name, layer.weight_spec, _sqnr(name, sums), None if kernel is None else _weights(layer))


def _weights(layer: Any) -> float:
    """Return the SQNR of the kernel's own numbers."""
    w, w_hat = (
        np.asarray(keras.ops.convert_to_numpy(k), np.float64)
        for k in (layer.kernel, layer.quantized_kernel(keras.ops.convert_to_tensor(layer.kernel)))
    )
    return sqnr_db(float(np.sum(w**2)), float(np.sum((w - w_hat) ** 2)))


def _sqnr(name: str, sums: np.ndarray) -> float:
    if not np.all(np.isfinite(sums)):
        raise UnsupportedModelError(
            f"{name!r} is not finite on these images. Received: sums of squares {sums.tolist()}. "
            "Check the weights before this layer and the preprocessing of the images."
        )
    return sqnr_db(*map(float, sums))
