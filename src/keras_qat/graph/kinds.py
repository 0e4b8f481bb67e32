"""What each layer and operation of Keras is: of a kind, by a table by type, or a composite of simpler layers.

A composite is read as a small model of simpler layers that computes the same. Engines need a Q/DQ pair between the two
convolutions of a SeparableConv2D, so the graph must show both. The same holds for a convolution with an activation of
its own, such as swish, that doesn't run inside its kernel: ONNX Runtime convolves in integers only where the result of
the convolution itself is quantized.
"""

from collections.abc import Callable
from typing import Any

import keras
from keras.src.applications.convnext import LayerScale  # scales the residual branches of that network
from keras.src.applications.inception_resnet_v2 import CustomScaleLayer  # scales the residual branches of that network
from keras.src.ops import nn, numpy  # the operations behind `keras.ops` calls in a graph

from keras_qat.graph.registry import KINDS, Classifier, register_kind
from keras_qat.text import callable_name
from keras_qat.types import OpKind

_WITH_A_CONSTANT = {OpKind.ADD: OpKind.SCALE, OpKind.MULTIPLY: OpKind.SCALE}
"""The kind of an operation on two tensors where one of them is a constant, as in `x * 2`."""

_HEIGHT_AND_WIDTH = ({1, 2}, {-3, -2}, {2, 3}, {-2, -1})
"""The spatial axes of images, channels last and channels first."""


def kind_of(operation: Any, tensors: int = 2) -> OpKind:
    """The kind of a layer or operation; `OpKind.OTHER` if neither its type nor a base class is registered.

    Args:
        operation: a layer, or an operation of `keras.ops`.
        tensors: the number of tensors it reads.

    Example:
        >>> kind_of(keras.layers.ReLU()), kind_of(keras.layers.ReLU(negative_slope=0.1))
        (<OpKind.RELU: 'relu'>, <OpKind.ACTIVATION: 'activation'>)
    """
    for base in type(operation).__mro__:
        if base in KINDS:
            kind = KINDS[base](operation)
            return _WITH_A_CONSTANT.get(kind, kind) if tensors == 1 else kind
    return OpKind.OTHER


def activation_name(function: Any) -> str | None:
    """The name of a layer's own activation function; `None` for no activation or the linear one."""
    if function is None or function is keras.activations.linear:
        return None
    return callable_name(function)


def _activation_kind(layer: Any) -> OpKind:
    name = activation_name(layer.activation)
    if name is None:
        return OpKind.IDENTITY
    return OpKind.RELU if name in {"relu", "relu6"} else OpKind.ACTIVATION


def _relu_kind(layer: Any) -> OpKind:
    plain = layer.negative_slope == 0 and layer.threshold == 0
    return OpKind.RELU if plain else OpKind.ACTIVATION


def _mean_kind(operation: Any) -> OpKind:
    """A mean over both spatial axes of an image is global average pooling."""
    return OpKind.AVERAGE_POOL if set(operation.axis or ()) in _HEIGHT_AND_WIDTH else OpKind.OTHER


_BUILT_IN: dict[type, OpKind | Classifier] = {
    keras.layers.InputLayer: OpKind.INPUT,
    keras.layers.Conv2D: OpKind.CONV,
    keras.layers.DepthwiseConv2D: OpKind.DEPTHWISE_CONV,
    keras.layers.Dense: OpKind.DENSE,
    keras.layers.BatchNormalization: OpKind.BATCH_NORM,
    keras.layers.Rescaling: OpKind.SCALE,
    keras.layers.Normalization: OpKind.SCALE,
    LayerScale: OpKind.SCALE,
    keras.layers.Activation: _activation_kind,
    keras.layers.ReLU: _relu_kind,
    keras.layers.LeakyReLU: OpKind.ACTIVATION,
    keras.layers.Softmax: OpKind.ACTIVATION,
    keras.layers.Add: OpKind.ADD,
    keras.layers.Multiply: OpKind.MULTIPLY,
    keras.layers.Concatenate: OpKind.CONCAT,
    keras.layers.MaxPooling2D: OpKind.MAX_POOL,
    keras.layers.AveragePooling2D: OpKind.AVERAGE_POOL,
    keras.layers.GlobalAveragePooling2D: OpKind.AVERAGE_POOL,
    keras.layers.GlobalMaxPooling2D: OpKind.MAX_POOL,
    keras.layers.ZeroPadding2D: OpKind.ZERO_PAD,
    keras.layers.Cropping2D: OpKind.RESHAPE,
    keras.layers.Flatten: OpKind.RESHAPE,
    keras.layers.Reshape: OpKind.RESHAPE,
    keras.layers.Permute: OpKind.RESHAPE,
    keras.layers.Dropout: OpKind.IDENTITY,
    keras.layers.SpatialDropout2D: OpKind.IDENTITY,
    numpy.Add: OpKind.ADD,
    numpy.Multiply: OpKind.MULTIPLY,
    numpy.Concatenate: OpKind.CONCAT,
    numpy.Reshape: OpKind.RESHAPE,
    numpy.Transpose: OpKind.RESHAPE,
    numpy.GetItem: OpKind.RESHAPE,
    numpy.Mean: _mean_kind,
    numpy.Tanh: OpKind.ACTIVATION,
    nn.Relu: OpKind.RELU,
    nn.Relu6: OpKind.RELU,
    nn.Sigmoid: OpKind.ACTIVATION,
    nn.HardSigmoid: OpKind.ACTIVATION,
    nn.Silu: OpKind.ACTIVATION,
    nn.HardSilu: OpKind.ACTIVATION,
    nn.Gelu: OpKind.ACTIVATION,
    nn.LeakyRelu: OpKind.ACTIVATION,
    nn.Softmax: OpKind.ACTIVATION,
}

for _type, _kind in _BUILT_IN.items():
    register_kind(_type, _kind)


Expansion = Callable[[Any, list[tuple[int | None, ...]]], keras.Model]
"""(layer, shapes of its inputs) → a Functional model that computes the same, with the layer's weights."""

_EXPANSIONS: dict[type, tuple[Expansion, Callable[[Any], bool]]] = {}

_FUSED = frozenset({keras.activations.linear, keras.activations.relu, keras.activations.relu6, None})
"""Activations that run inside a convolution's kernel: none, or a clip of its result."""


def _always(_: Any) -> bool:
    return True


def register_composite(*layer_types: type, when: Callable[[Any], bool] = _always) -> Callable[[Expansion], Expansion]:
    """Decorate the function that expands layers of exactly these types; a subclass may compute something else.

    Args:
        layer_types: layer types, such as `keras.layers.SeparableConv2D`.
        when: whether to expand a given layer of these types; by default every layer is expanded.

    Returns:
        The decorator, which returns the function unchanged.
    """

    def register(function: Expansion) -> Expansion:
        _EXPANSIONS.update(dict.fromkeys(layer_types, (function, when)))
        return function

    return register


def find_expansion(layer: Any) -> Expansion | None:
    """The function that expands a layer; `None` for a layer that is a single operation."""
    expansion, when = _EXPANSIONS.get(type(layer), (None, _always))
    return expansion if when(layer) else None


@register_composite(keras.layers.SeparableConv2D)
def expand_separable_conv(layer: Any, shapes: list[tuple[int | None, ...]]) -> keras.Model:
    """A depthwise convolution, and a pointwise one with the layer's name, bias and activation."""
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


def _activation_is_separate(layer: Any) -> bool:
    return layer.activation not in _FUSED


@register_composite(keras.layers.Conv2D, keras.layers.DepthwiseConv2D, when=_activation_is_separate)
def expand_inner_activation(layer: Any, shapes: list[tuple[int | None, ...]]) -> keras.Model:
    """A convolution with the layer's name, and its activation as a separate layer."""
    convolution = type(layer).from_config({**layer.get_config(), "activation": None})
    function = layer.activation
    is_layer = isinstance(function, keras.layers.Layer)
    activation = (
        type(function).from_config(function.get_config())
        if is_layer
        else keras.layers.Activation(function, dtype=layer.dtype_policy, name=f"{layer.name}_activation")
    )
    inputs = keras.Input(batch_shape=shapes[0])
    model = keras.Model(inputs, activation(convolution(inputs)), name=f"{layer.name}_composite")
    convolution.set_weights(layer.get_weights()[: len(convolution.weights)])
    if is_layer and function.weights:  # such as those of a PReLU
        activation.set_weights(function.get_weights())
    return model
