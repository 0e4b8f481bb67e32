"""Layers that stand for several: read as the small model of simpler layers that computes the same.

Between the two convolutions of a SeparableConv2D engines want a Q/DQ pair, so the graph must show both. So it is with a
convolution and its own activation, such as swish, that doesn't run inside it: ONNX Runtime convolves in integers only
where the convolution's own result is quantized.
"""

from collections.abc import Callable
from typing import Any

import keras
from keras.src.applications.inception_resnet_v2 import CustomScaleLayer  # the layer type of that network's residuals

Expansion = Callable[[Any, list[tuple[int | None, ...]]], keras.Model]
"""(layer, shapes of its inputs) → a Functional model of the layer's inputs, with the layer's weights."""

_EXPANSIONS: dict[type, tuple[Expansion, Callable[[Any], bool]]] = {}


def _always(_: Any) -> bool:
    return True


def register_composite(*layer_types: type, when: Callable[[Any], bool] = _always) -> Callable[[Expansion], Expansion]:
    """Decorate the function that expands these layer types; subclasses, which may compute otherwise, aren't included.

    Args:
        layer_types: of `keras.layers`.
        when: which layers of the types; the others are one operation.
    """

    def register(function: Expansion) -> Expansion:
        _EXPANSIONS.update(dict.fromkeys(layer_types, (function, when)))
        return function

    return register


def find_expansion(layer: Any) -> Expansion | None:
    """How the layer is expanded, or `None` for a layer that is one operation."""
    expansion, when = _EXPANSIONS.get(type(layer), (None, _always))
    return expansion if when(layer) else None


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


_INSIDE = frozenset({keras.activations.linear, keras.activations.relu, keras.activations.relu6, None})
"""What runs inside a convolution's kernel: nothing, or a clip of its result."""


def _ends_outside(layer: Any) -> bool:
    return layer.activation not in _INSIDE


@register_composite(keras.layers.Conv2D, keras.layers.DepthwiseConv2D, when=_ends_outside)
def expand_inner_activation(layer: Any, shapes: list[tuple[int | None, ...]]) -> keras.Model:
    """A convolution, which keeps the layer's name, and its activation as a layer of its own."""
    convolution = type(layer).from_config({**layer.get_config(), "activation": None})
    own = layer.activation
    named = isinstance(own, keras.layers.Layer)
    activation = (
        type(own).from_config(own.get_config())
        if named
        else keras.layers.Activation(own, dtype=layer.dtype_policy, name=f"{layer.name}_activation")
    )
    inputs = keras.Input(batch_shape=shapes[0])
    model = keras.Model(inputs, activation(convolution(inputs)), name=f"{layer.name}_composite")
    convolution.set_weights(layer.get_weights()[: len(convolution.weights)])
    if named and own.weights:  # such as a PReLU's
        activation.set_weights(own.get_weights())
    return model
