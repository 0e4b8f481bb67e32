"""Layers that stand for several: read as the small model of simpler layers that computes the same.

Between the two convolutions of a SeparableConv2D engines want a Q/DQ pair, so the graph must show both.
"""

from collections.abc import Callable
from typing import Any

import keras
from keras.src.applications.inception_resnet_v2 import CustomScaleLayer  # the layer type of that network's residuals

Expansion = Callable[[Any, list[tuple[int | None, ...]]], keras.Model]
"""(layer, shapes of its inputs) → a Functional model of the layer's inputs, with the layer's weights."""

_EXPANSIONS: dict[type, Expansion] = {}


def register_composite(layer_type: type) -> Callable[[Expansion], Expansion]:
    """Decorate the function that expands this layer type; subclasses, which may compute otherwise, aren't included."""

    def register(function: Expansion) -> Expansion:
        _EXPANSIONS[layer_type] = function
        return function

    return register


def find_expansion(layer: Any) -> Expansion | None:
    """How the layer is expanded, or `None` for a layer that is one operation."""
    return _EXPANSIONS.get(type(layer))


@register_composite(keras.layers.SeparableConv2D)
def expand_separable_conv(layer: Any, shapes: list[tuple[int | None, ...]]) -> keras.Model:
    """A depthwise convolution, then a pointwise one, which keeps the layer's name, bias and activation."""
    depthwise = keras.layers.DepthwiseConv2D(
        layer.kernel_size,
        strides=layer.strides,
        padding=layer.padding,
        depth_multiplier=layer.depth_multiplier,
        data_format=layer.data_format,
        dilation_rate=layer.dilation_rate,
        use_bias=False,
        dtype=layer.dtype_policy,
        name=f"{layer.name}_depthwise",
    )
    pointwise = keras.layers.Conv2D(
        layer.filters,
        1,
        data_format=layer.data_format,
        use_bias=layer.use_bias,
        activation=layer.activation,
        dtype=layer.dtype_policy,
        name=layer.name,
    )
    inputs = keras.Input(batch_shape=shapes[0])
    model = keras.Model(inputs, pointwise(depthwise(inputs)), name=f"{layer.name}_composite")
    weights = layer.get_weights()
    depthwise.set_weights(weights[:1])
    pointwise.set_weights(weights[1:])
    return model


@register_composite(CustomScaleLayer)
def expand_scaled_residual(layer: Any, shapes: list[tuple[int | None, ...]]) -> keras.Model:
    """InceptionResNetV2's `x + scale * branch`: a Rescaling, which folds into the branch's convolution, and an Add."""
    x, branch = (keras.Input(batch_shape=shape) for shape in shapes)
    scaled = keras.layers.Rescaling(layer.scale, dtype=layer.dtype_policy, name=f"{layer.name}_scale")(branch)
    added = keras.layers.Add(dtype=layer.dtype_policy, name=layer.name)([x, scaled])
    return keras.Model([x, branch], added, name=f"{layer.name}_composite")
