"""Take back the shift that quantization puts on the mean of each layer's output.

Rounding and clipping don't average out: the output of a quantized layer has another mean, channel by channel, than that
of the float layer, and the shifts add up along the network. With x̂, Ŵ the quantized input and kernel,

    δ = E[Ŵ x̂] - E[W x]        b ← b - δ

over the calibration images (Nagel et al. 2019, https://arxiv.org/abs/1906.04721, section 4.2, from samples). Each
layer's δ is measured on the float network's activations: all layers in one pass, each for its own rounding alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_qat.calibration.inputs import read_batches
from keras_qat.calibration.pairs import kernel_calls, mean_over_images, own_batch_norm, paired_outputs
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
