"""Undo the change that quantization makes to the statistics of each layer's output.

Rounding and clipping do not average out. The output of a quantized layer has another mean, channel by channel, than the
output of the float layer, and the shifts add up along the network. Both repairs here measure every layer on the float
network's activations, all layers in one pass, each for its own rounding alone. With W, x the float kernel and input,
Ŵ, x̂ the quantized ones, and averages over the calibration images:

Bias correction (Nagel et al. 2019, https://arxiv.org/abs/1906.04721, section 4.2, from samples) shifts the bias b:

    δ = E[Ŵ x̂] - E[W x]        b ← b - δ

Re-estimation of batch norms (as in Nagel et al. 2022, https://arxiv.org/abs/2203.11086, section 4.1) updates their
statistics μ and σ², which are those of the float layer, so that a batch norm outputs the same mean and variance as in
the float model. With y = W x + b and ŷ = Ŵ x̂ + b,

    r² = Var[ŷ] / Var[y],        μ ← E[ŷ] + r (μ - E[y]),        σ² ← r² (σ² + ε) - ε

The update is relative to y, since a few images give a good estimate of a change, but not of the statistics of all the
images that the network was trained on.

Re-estimation includes the correction of biases, so use one of the two. On ResNet50 it gains no more than bias
correction does (docs/calibration.md).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from keras_qat import layers, transform
from keras_qat.calibration import intake, kernel_ranges
from keras_qat.errors import DataError
from keras_qat.graph import Graph, Node, Trace, trace
from keras_qat.types import OpKind

_ADDS_ITS_BIAS = frozenset(
    {
        layers.QuantizedConv1D,
        layers.QuantizedConv2D,
        layers.QuantizedConv3D,
        layers.QuantizedConv1DTranspose,
        layers.QuantizedConv2DTranspose,
        layers.QuantizedConv3DTranspose,
        layers.QuantizedDepthwiseConv1D,
        layers.QuantizedDepthwiseConv2D,
        layers.QuantizedDense,
    }
)
"""The types that add their bias to each output channel, after the products and before the activation."""

_LEAST_VARIANCE = 1e-5
"""As a share of the mean square. A smaller variance is lost in the rounding of float32 sums."""


@dataclass(frozen=True)
class BiasCorrection:
    """A model with corrected biases, and what was changed.

    Args:
        model: The new quantized model.
        shifts: δ of each corrected layer, float32, shape (output channels,).
        skipped: By name, each layer with a quantized kernel that was not corrected, and the reason.
        images: The number of images that the shifts were measured on.
    """

    model: Any
    shifts: Mapping[str, np.ndarray] = field(repr=False)
    skipped: Mapping[str, str]
    images: int


@dataclass(frozen=True)
class Reestimation:
    """A model with re-estimated batch norms, and what was changed.

    Args:
        model: The new quantized model.
        shifts: E[ŷ] - E[y] of each layer before a re-estimated batch norm, float64, shape (channels,).
        ratios: r² of the same layers; 1 where a channel is constant.
        skipped: By name, each layer with a quantized kernel whose batch norm was not re-estimated, and the reason.
        images: The number of images that the statistics were measured on.
    """

    model: Any
    shifts: Mapping[str, np.ndarray] = field(repr=False)
    ratios: Mapping[str, np.ndarray] = field(repr=False)
    skipped: Mapping[str, str]
    images: int


def correct_bias(
    model: Any, quantized: Any, batches: Any, *, images: int | None = None, total: int | None = None
) -> BiasCorrection:
    """Shift the biases of a quantized model so that each layer keeps the mean of its float output.

    Args:
        model: The float model. It is not changed.
        quantized: The model that `apply_placement` made of it. It is not changed.
        batches: Images, as for `calibrate`. A hundred are enough.
        images: The exact number of images to read; all by default.
        total: The number of batches, for the progress bar, if the data cannot tell it.

    Returns:
        A corrected copy of `quantized`. A layer without a bias is corrected in the batch norm that follows it.

    Raises:
        DataError: If there are no images, if they do not fit the model's input or are not finite, or if they never end
            and `images` is not given.
        UserError: If `quantized` was made of another model.

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
    corrected = transform.rebuild(traced, transform.copy_layer, lambda _, tensor: tensor)
    means, seen = _measure(model, traced, _MeanDifference, batches, "correcting biases", images, total)
    shifts: dict[str, np.ndarray] = {}
    skipped: dict[str, str] = {}
    for layer, nodes in kernel_ranges.kernel_calls(traced).items():
        shift = means[layer].astype(np.float32)
        if reason := _shift(corrected, traced.graph, nodes, shift):
            skipped[layer] = reason
        else:
            shifts[layer] = shift
    return BiasCorrection(corrected, shifts, skipped, seen)


def _shift(corrected: Any, graph: Graph, nodes: Sequence[Node], delta: np.ndarray) -> str | None:
    """Subtract δ in the layer's bias or in the batch norm behind it; return the reason if neither is possible."""
    layer = corrected.get_layer(nodes[0].layer)
    if type(layer) not in _ADDS_ITS_BIAS:
        return f"what a {type(layer).__name__} does with its bias isn't known"
    if layer.bias is not None:
        layer.bias.assign(layer.bias - delta)
        return None
    norm = _own_batch_norm(corrected, graph, nodes)
    if isinstance(norm, str):
        return f"it has no bias, and {norm}"
    # The input of the batch norm has risen by δ, so the mean that it subtracts rises by δ.
    norm.moving_mean.assign(norm.moving_mean + delta)
    return None


def reestimate_batch_norms(
    model: Any, quantized: Any, batches: Any, *, images: int | None = None, total: int | None = None
) -> Reestimation:
    """Give the batch norms of a quantized model the statistics of their quantized inputs.

    Args:
        model: The float model. It is not changed.
        quantized: The model that `apply_placement` made of it, without bias correction. It is not changed.
        batches: Images, as for `calibrate`. A hundred are enough.
        images: The exact number of images to read; all by default.
        total: The number of batches, for the progress bar, if the data cannot tell it.

    Returns:
        A copy of `quantized` with new statistics.

    Raises:
        DataError: If there are no images, if they do not fit the model's input or are not finite, or if they never end
            and `images` is not given.
        UserError: If `quantized` was made of another model.

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
    renewed = transform.rebuild(traced, transform.copy_layer, lambda _, tensor: tensor)
    moments, seen = _measure(model, traced, _Moments, batches, "re-estimating batch norms", images, total)
    shifts: dict[str, np.ndarray] = {}
    ratios: dict[str, np.ndarray] = {}
    skipped: dict[str, str] = {}
    for layer, nodes in kernel_ranges.kernel_calls(traced).items():
        norm = _own_batch_norm(renewed, traced.graph, nodes)
        if isinstance(norm, str):
            skipped[layer] = norm
            continue
        mean, square = moments[layer].reshape(2, 2, -1)
        variance = square - mean**2
        shifts[layer] = mean[1] - mean[0]
        usable = variance.min(axis=0) > _LEAST_VARIANCE * square.max(axis=0)
        ratios[layer] = np.divide(variance[1], variance[0], out=np.ones_like(mean[0]), where=usable)
        bias = getattr(renewed.get_layer(layer), "bias", None)
        mean = mean if bias is None else mean + keras.ops.convert_to_numpy(bias)
        norm.moving_mean.assign(mean[1] + np.sqrt(ratios[layer]) * (norm.moving_mean - mean[0]))
        spread = ratios[layer] * (keras.ops.convert_to_numpy(norm.moving_variance) + norm.epsilon) - norm.epsilon
        norm.moving_variance.assign(np.maximum(spread, 0))
    return Reestimation(renewed, shifts, ratios, skipped, seen)


def _own_batch_norm(model: Any, graph: Graph, nodes: Sequence[Node]) -> Any:
    """Return the batch norm that follows all calls of a layer and no other layer, or the reason why there is none.

    Args:
        model: The quantized model.
        graph: Its graph.
        nodes: The calls of one layer.
    """
    layer = model.get_layer(nodes[0].layer)
    behind = [graph.sole_consumer(node.outputs[0]) for node in nodes]
    norms = {node.layer for node in behind if node is not None and node.kind is OpKind.BATCH_NORM}
    linear = getattr(layer, "activation", None) in (None, keras.activations.linear)
    if len(norms) != 1 or None in behind or not linear:
        return "no batch norm of its own is behind it"
    norm = model.get_layer(norms.pop())
    channels_first = getattr(layer, "data_format", None) == "channels_first"
    if norm.axis not in ((1,) if channels_first else (-1, len(layer.output.shape) - 1)):
        return "the batch norm behind it doesn't normalize its channels"
    if sum(node.layer == norm.name for node in graph.nodes) != len(nodes):
        return "other layers share the batch norm behind it"
    return norm


class _Statistic(keras.layers.Layer):
    """A statistic of W x and Ŵ x̂ over the images of a batch and all axes but the channels'."""

    def __init__(self, axes: tuple[int, ...], **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        self.axes = axes


class _MeanDifference(_Statistic):
    def call(self, exact: Any, rounded: Any) -> Any:
        """Return δ, float32, shape (channels,)."""
        return keras.ops.mean(keras.ops.cast(rounded, "float32") - keras.ops.cast(exact, "float32"), axis=self.axes)


class _Moments(_Statistic):
    def call(self, exact: Any, rounded: Any) -> Any:
        """Return E[W x], E[Ŵ x̂] and the means of their squares, float32, shape (4, channels)."""
        a, b = keras.ops.cast(exact, "float32"), keras.ops.cast(rounded, "float32")
        return keras.ops.stack([keras.ops.mean(x, axis=self.axes) for x in (a, b, a * a, b * b)])


def _measure(
    model: Any,
    traced: Trace,
    statistic: type[_Statistic],
    batches: Any,
    description: str,
    images: int | None,
    total: int | None,
) -> tuple[dict[str, np.ndarray], int]:
    """Return the mean of a statistic over all images and calls of each quantized layer, and the number of images.

    Args:
        model: The float model.
        traced: The quantized model.
        statistic: The layer that computes the statistic of one batch.
        batches: Images, as for `read_batches`.
        description: What the images are read for.
        images: The exact number of images to read; all if `None`.
        total: The number of batches, if it is known.

    Returns:
        The means by the layer's name, float64. Without a quantized layer no image is read.

    Raises:
        DataError: If there are no images.
        UserError: If the quantized model was made of another float model.
    """
    network, pairs = kernel_ranges.paired_outputs(model, traced)
    if not pairs:
        return {}, 0
    outputs = {
        pair.node: statistic(pair.other_axes, name=f"keras_qat_mean_{transform.scope_name(pair.node)}")(
            pair.exact, pair.rounded
        )
        for pair in pairs
    }
    probe = keras.Model(network.inputs, outputs)
    sums: dict[str, Any] = {}
    seen = 0
    for x in intake.read_batches(batches, model, images=images, description=description, total=total):
        seen += len(x[0])
        for name, mean in probe.predict_on_batch(x).items():
            sums[name] = sums.get(name, 0) + np.asarray(mean, np.float64) * len(x[0])
    if seen == 0:
        raise DataError("There is nothing to repair the model with. Received: 0 images. Give at least one batch.")
    calls = kernel_ranges.kernel_calls(traced)
    return {layer: np.mean([sums[node.name] / seen for node in calls[layer]], axis=0) for layer in calls}, seen
