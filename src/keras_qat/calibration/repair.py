"""Take back the shift that quantization puts on the mean of each layer's output.

Rounding and clipping don't average out: the output of a quantized layer has another mean, channel by channel, than that
of the float layer, and the shifts add up along the network. With x̂, Ŵ the quantized input and kernel,

    δ = E[Ŵ x̂] - E[W x]        b ← b - δ

over the calibration images (Nagel et al. 2019, https://arxiv.org/abs/1906.04721, section 4.2, from samples). Each
layer's δ is measured on the float network's activations: all layers in one pass, each for its own rounding alone.

Re-estimate batch norms: their statistics are of the float layer before them, which quantization has changed.

With y = W x + b the float output and ŷ = Ŵ x̂ + b the rounded one, over the calibration images and channel by channel,

    r² = Var[ŷ] / Var[y],        μ ← E[ŷ] + r (μ - E[y]),        σ² ← r² (σ² + ε) - ε

so that the batch norm puts out the mean and variance that it did (re-estimation as in Nagel et al. 2022,
https://arxiv.org/abs/2203.11086, section 4.1). Relative to y, since a few images estimate a change well, but not the
statistics of all the images that the network was trained on.

It contains the correction of biases: do one or the other. On ResNet50 it gains no more than that (docs/calibration.md).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_qat.calibration.intake import read_batches
from keras_qat.calibration.kernel_ranges import kernel_calls, mean_over_images, own_batch_norm, paired_outputs
from keras_qat.graph import Graph, Node, Trace, trace
from keras_qat.layers import QuantizedConv2D, QuantizedDense, QuantizedDepthwiseConv2D
from keras_qat.transform import copy_layer, rebuild, scope_name

_ADDS_ITS_BIAS = frozenset({QuantizedConv2D, QuantizedDepthwiseConv2D, QuantizedDense})


@dataclass(frozen=True)
class BiasCorrection:
    """A corrected model, and what was changed.

    Args:
        model: the new quantized model.
        shifts: δ of each corrected layer, float32, shape (output channels,).
        skipped: why a layer with a quantized kernel was left as it was, by its name.
        images: how many images it was measured on.
    """

    model: Any
    shifts: Mapping[str, np.ndarray] = field(repr=False)
    skipped: Mapping[str, str]
    images: int


def correct_bias(
    model: Any, quantized: Any, batches: Any, *, images: int | None = None, total: int | None = None
) -> BiasCorrection:
    """Shift the biases of a quantized model so that each layer keeps the mean of its float output.

    Args:
        model: the float model. It is not changed.
        quantized: what `apply_placement` made of it. It is not changed.
        batches: as for `calibrate`.
        images: take exactly so many images; a hundred are plenty.
        total: number of batches, for the progress bar.

    Returns:
        A corrected copy of `quantized`. A layer without a bias is corrected in the batch norm behind it.

    Raises:
        DataError: there are no images, they don't fit the model's input or aren't finite, or they never end.
        UserError: `quantized` was made of another model.

    Example:
        >>> from keras_qat import apply_placement, calibrate, plan
        >>> x = keras.Input((8, 8, 3), name="image")
        >>> model = keras.Model(x, keras.layers.Conv2D(4, 3, name="conv")(x))
        >>> images = [np.random.default_rng(0).normal(size=(16, 8, 8, 3)).astype("float32")]
        >>> placement = plan(trace(model).graph, "tensorrt")
        >>> quantized = apply_placement(model, placement, calibrate(model, placement, images))
        >>> correct_bias(model, quantized, images).shifts["conv"].shape
        (4,)
    """
    traced = trace(quantized)
    corrected = rebuild(traced, copy_layer, lambda _, tensor: tensor)
    if not (calls := kernel_calls(traced)):
        return BiasCorrection(corrected, {}, {}, 0)
    probe = _build_probe(model, traced)
    data = read_batches(batches, model, images=images, description="correcting biases", total=total)
    means, seen = mean_over_images(probe, data)
    shifts: dict[str, np.ndarray] = {}
    skipped: dict[str, str] = {}
    for layer, nodes in calls.items():
        shift = np.mean([means[node.name] for node in nodes], axis=0).astype(np.float32)
        if reason := _shift(corrected, traced.graph, nodes, shift):
            skipped[layer] = reason
        else:
            shifts[layer] = shift
    return BiasCorrection(corrected, shifts, skipped, seen)


class _MeanDifference(keras.layers.Layer):
    """E[a - b] over some axes."""

    def __init__(self, axes: tuple[int, ...], **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        self.axes = axes

    def call(self, a: Any, b: Any) -> Any:
        """Shape (channels,), float32."""
        return ops.mean(ops.cast(a, "float32") - ops.cast(b, "float32"), axis=self.axes)


def _build_probe(model: Any, traced: Trace) -> keras.Model:
    """The float network, with δ of each call of a quantized kernel as its outputs."""
    network, pairs = paired_outputs(model, traced)
    deltas = {
        p.node: _MeanDifference(p.other_axes, name=f"keras_qat_delta_{scope_name(p.node)}")(p.rounded, p.exact)
        for p in pairs
    }
    return keras.Model(network.inputs, deltas, name=f"{traced.name}_bias_probe")


def _shift(corrected: Any, graph: Graph, nodes: Sequence[Node], delta: np.ndarray) -> str | None:
    """Take δ back in the layer's bias, or in the batch norm behind it; return why that can't be done."""
    layer = corrected.get_layer(nodes[0].layer)
    if type(layer) not in _ADDS_ITS_BIAS:
        return f"what a {type(layer).__name__} does with its bias isn't known"
    if layer.bias is not None:
        layer.bias.assign(layer.bias - delta)
        return None
    norm = own_batch_norm(corrected, graph, nodes)
    if isinstance(norm, str):
        return f"it has no bias, and {norm}"
    # What comes in has risen by δ, so the mean that is subtracted rises with it.
    norm.moving_mean.assign(norm.moving_mean + delta)
    return None


_LEAST_VARIANCE = 1e-5
"""Of the mean square: what is less drowns in the rounding of float32 sums."""


@dataclass(frozen=True)
class Reestimation:
    """A model with batch norms re-estimated, and what was changed.

    Args:
        model: the new quantized model.
        shifts: E[ŷ] - E[y] of each layer before a re-estimated batch norm, float64, shape (channels,).
        ratios: r², likewise; 1 where a channel is constant.
        skipped: why nothing was re-estimated behind a layer with a quantized kernel, by its name.
        images: how many images it was measured on.
    """

    model: Any
    shifts: Mapping[str, np.ndarray] = field(repr=False)
    ratios: Mapping[str, np.ndarray] = field(repr=False)
    skipped: Mapping[str, str]
    images: int


def reestimate_batch_norms(
    model: Any, quantized: Any, batches: Any, *, images: int | None = None, total: int | None = None
) -> Reestimation:
    """Give the batch norms of a quantized model the statistics of their quantized inputs.

    Args:
        model: the float model. It is not changed.
        quantized: what `apply_placement` made of it, its biases not corrected. It is not changed.
        batches: as for `calibrate`; a hundred images are plenty.
        images: take exactly so many images; all if not given.
        total: number of batches, for the progress bar, where the data can't say.

    Raises:
        DataError: there are no images, or they don't fit the model's input.
        UserError: `quantized` was made of another model.

    Example:
        >>> from keras_qat import apply_placement, calibrate, plan
        >>> x = keras.Input((8, 8, 3), name="image")
        >>> y = keras.layers.BatchNormalization(name="norm")(keras.layers.Conv2D(4, 3, name="conv")(x))
        >>> model = keras.Model(x, y)
        >>> images = [np.random.default_rng(0).normal(size=(16, 8, 8, 3)).astype("float32")]
        >>> placement = plan(trace(model).graph, "tensorrt")
        >>> quantized = apply_placement(model, placement, calibrate(model, placement, images))
        >>> bool((abs(reestimate_batch_norms(model, quantized, images).ratios["conv"] - 1) < 0.05).all())
        True
    """
    traced = trace(quantized)
    network, pairs = paired_outputs(model, traced)
    renewed = rebuild(traced, copy_layer, lambda _, tensor: tensor)
    if not pairs:
        return Reestimation(renewed, {}, {}, {}, 0)
    moments = {
        p.node: _Moments(p.other_axes, name=f"keras_qat_moments_{scope_name(p.node)}")(p.exact, p.rounded)
        for p in pairs
    }
    probe = keras.Model(network.inputs, moments)
    data = read_batches(batches, model, images=images, description="re-estimating batch norms", total=total)
    means, seen = mean_over_images(probe, data)
    shifts: dict[str, np.ndarray] = {}
    ratios: dict[str, np.ndarray] = {}
    skipped: dict[str, str] = {}
    for layer, nodes in kernel_calls(traced).items():
        norm = own_batch_norm(renewed, traced.graph, nodes)
        if isinstance(norm, str):
            skipped[layer] = norm
            continue
        mean, square = np.mean([means[node.name] for node in nodes], axis=0).reshape(2, 2, -1)
        variance = square - mean**2
        shifts[layer] = mean[1] - mean[0]
        usable = variance.min(axis=0) > _LEAST_VARIANCE * square.max(axis=0)
        ratios[layer] = np.divide(variance[1], variance[0], out=np.ones_like(mean[0]), where=usable)
        bias = getattr(renewed.get_layer(layer), "bias", None)
        mean = mean if bias is None else mean + ops.convert_to_numpy(bias)
        norm.moving_mean.assign(mean[1] + np.sqrt(ratios[layer]) * (norm.moving_mean - mean[0]))
        spread = ratios[layer] * (ops.convert_to_numpy(norm.moving_variance) + norm.epsilon) - norm.epsilon
        norm.moving_variance.assign(np.maximum(spread, 0))
    return Reestimation(renewed, shifts, ratios, skipped, seen)


class _Moments(keras.layers.Layer):
    """First and second moments of two tensors over some axes."""

    def __init__(self, axes: tuple[int, ...], **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        self.axes = axes

    def call(self, a: Any, b: Any) -> Any:
        """E[a], E[b], E[a²], E[b²], float32, shape (4, channels)."""
        a, b = ops.cast(a, "float32"), ops.cast(b, "float32")
        return ops.stack([ops.mean(x, axis=self.axes) for x in (a, b, a * a, b * b)])
