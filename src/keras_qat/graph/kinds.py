"""What each layer and operation of Keras is: of a kind, by a table by type, or a composite of simpler layers.

A composite is read as a small model of simpler layers that computes the same. Engines need a Q/DQ pair between the two
convolutions of a SeparableConv2D, so the graph must show both. The same holds for a convolution with an activation of
its own, such as swish, that doesn't run inside its kernel: ONNX Runtime convolves in integers only where the result of
the convolution itself is quantized.
"""

import sys
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras.src.activations.activations import ReLU  # the operation behind `keras.activations.relu`
from keras.src.applications.convnext import LayerScale  # scales the residual branches of that network
from keras.src.applications.inception_resnet_v2 import CustomScaleLayer  # scales the residual branches of that network
from keras.src.ops import core, nn, numpy  # the operations behind `keras.ops` calls in a graph

from keras_qat.graph.capture import unchanged
from keras_qat.graph.copying import copy_by_settings
from keras_qat.graph.registry import KINDS, Classifier, known_type, plain_type, register_kind
from keras_qat.types import OpKind

_WITH_A_CONSTANT = {OpKind.ADD: OpKind.SCALE, OpKind.MULTIPLY: OpKind.SCALE, OpKind.MATMUL: OpKind.OTHER}
"""The kind of an operation on two tensors where one of them is a constant, as in `x * 2`."""

_HEIGHT_AND_WIDTH = ({1, 2}, {-3, -2}, {2, 3}, {-2, -1})
"""The spatial axes of images, channels last and channels first."""


def kind_of(operation: Any, tensors: int = 2, constants: Sequence[Any] = ()) -> OpKind:
    """The kind of a layer or operation; `OpKind.OTHER` if nothing is known of it.

    Args:
        operation: a layer, or an operation of `keras.ops`.
        tensors: the number of tensors it reads.
        constants: the other arguments of its call.

    Example:
        >>> kind_of(keras.layers.ReLU()), kind_of(keras.layers.ReLU(negative_slope=0.1))
        (<OpKind.RELU: 'relu'>, <OpKind.ACTIVATION: 'activation'>)
    """
    kind = _known_kind(operation)
    if kind is None:
        return OpKind.OTHER
    if type(operation) is numpy.Pad and operation.mode == "constant" and all(map(_is_passed_by, constants)):
        return OpKind.ZERO_PAD
    return _WITH_A_CONSTANT.get(kind, kind) if tensors == 1 else kind


def is_known(operation: Any) -> bool:
    """Whether a layer or operation is one node of a graph; otherwise its `call` is read.

    Example:
        >>> is_known(keras.layers.Activation("relu")), is_known(keras.layers.Activation(lambda x: x - 1))
        (True, False)
    """
    return not isinstance(operation, keras.layers.Layer) or _known_kind(operation) is not None


def _known_kind(operation: Any) -> OpKind | None:
    known = known_type(operation, KINDS)
    return None if known is None else KINDS[known](operation)


_ACTIVATIONS: dict[Any, str] = {
    function: name
    for name in sorted(dir(keras.activations), reverse=True)  # of two names for one function, "silu" and not "swish"
    if name not in {"deserialize", "get", "serialize"} and callable(function := getattr(keras.activations, name))
}
"""The name of each activation function of Keras, by the function."""

_SAME_IN_TENSORFLOW = ("elu", "relu", "relu6", "selu", "sigmoid", "silu", "softmax", "softplus", "softsign", "tanh")
"""Functions of `tf.nn` that compute what Keras's function of that name does, with the arguments' defaults."""

_RELU_FUNCTIONS = frozenset({"relu", "relu6"})


def activation_name(function: Any) -> str | None:
    """The name of a layer's own activation function.

    Args:
        function: the function, or another callable.

    Returns:
        For a function of Keras, or one of TensorFlow that computes the same, its name in `keras.activations`; for any
        other callable its name with a dot, which is no name of a Keras function; `None` for no activation or the linear
        one.

    Example:
        >>> def relu(x):
        ...     return x - 1
        >>> activation_name(keras.activations.relu), activation_name(relu), activation_name(None)
        ('relu', 'keras_qat.graph.kinds.relu', None)
    """
    if function is None or function is keras.activations.linear:
        return None
    return _keras_name(function) or _dotted_name(function)


def last_activation(operation: Any) -> str | None:
    """The name of the activation with which a layer ends.

    Args:
        operation: a layer, or an operation of `keras.ops`.

    Returns:
        As `activation_name`. For a layer that isn't one of Keras's or of keras-qat, which may go on after its
        activation, the name of its class with a dot.

    Example:
        >>> last_activation(keras.layers.Dense(2, activation="relu"))
        'relu'
    """
    function, kind = getattr(operation, "activation", None), plain_type(operation)
    if function is None or kind.__module__.partition(".")[0] in _ENDS_IN_ACTIVATION:
        return activation_name(function)
    return _dotted_name(kind)


_ENDS_IN_ACTIVATION = frozenset({"keras", "keras_qat"})
"""The packages whose layers compute nothing after their activation."""


def _keras_name(function: Any) -> str | None:
    try:
        known = _ACTIVATIONS.get(function)
    except TypeError:  # a callable that can't be hashed
        return None
    tensorflow = sys.modules.get("tensorflow")
    if known is not None or tensorflow is None:
        return known
    return next((name for name in _SAME_IN_TENSORFLOW if function is getattr(tensorflow.nn, name, None)), None)


def _dotted_name(function: Any) -> str:
    named = function if hasattr(function, "__qualname__") else type(function)
    return f"{named.__module__}.{named.__qualname__}"


def _has_known_activation(layer: Any) -> bool:
    return layer.activation is None or _keras_name(layer.activation) is not None


def _activation_kind(layer: Any) -> OpKind | None:
    if not _has_known_activation(layer):
        return None
    name = activation_name(layer.activation)
    if name is None:
        return OpKind.IDENTITY
    return OpKind.RELU if name in _RELU_FUNCTIONS else OpKind.ACTIVATION


def _relu_kind(layer: Any) -> OpKind:
    plain = layer.negative_slope == 0 and layer.threshold == 0
    return OpKind.RELU if plain else OpKind.ACTIVATION


def _mean_kind(operation: Any) -> OpKind:
    """A mean over both spatial axes of an image is global average pooling."""
    return OpKind.AVERAGE_POOL if set(operation.axis or ()) in _HEIGHT_AND_WIDTH else OpKind.OTHER


def _up_sampling_kind(layer: Any) -> OpKind:
    """Repeated pixels are the numbers of the input; interpolated ones are new numbers."""
    return OpKind.RESIZE if getattr(layer, "interpolation", "nearest") == "nearest" else OpKind.OTHER


def _pad_kind(operation: Any) -> OpKind:
    return OpKind.RESHAPE if operation.mode in {"reflect", "symmetric", "edge"} else OpKind.OTHER


def _is_passed_by(constant: Any) -> bool:
    """Whether a pad of that constant may stand behind a Q/DQ pair: 0 is on every grid, and -∞ is never a maximum."""
    return constant is None or (np.size(constant) == 1 and float(np.asarray(constant).item()) in {0.0, -np.inf})


IDENTITY_LAYERS = (
    *(keras.layers.Dropout, keras.layers.SpatialDropout1D, keras.layers.SpatialDropout2D),
    *(keras.layers.SpatialDropout3D, keras.layers.AlphaDropout, keras.layers.GaussianDropout),
    *(keras.layers.GaussianNoise, keras.layers.ActivityRegularization, keras.layers.Identity),
    *(keras.layers.RandomBrightness, keras.layers.RandomColorDegeneration, keras.layers.RandomColorJitter),
    *(keras.layers.RandomContrast, keras.layers.RandomElasticTransform, keras.layers.RandomErasing),
    *(keras.layers.RandomFlip, keras.layers.RandomGaussianBlur, keras.layers.RandomGrayscale, keras.layers.RandomHue),
    *(keras.layers.RandomInvert, keras.layers.RandomPerspective, keras.layers.RandomPosterization),
    *(keras.layers.RandomRotation, keras.layers.RandomSaturation, keras.layers.RandomSharpness),
    *(keras.layers.RandomShear, keras.layers.RandomTranslation, keras.layers.RandomZoom),
    *(keras.layers.AugMix, keras.layers.CutMix, keras.layers.MixUp, keras.layers.RandAugment),
)
"""Dropout, noise and augmentation, which at inference pass their input on."""

_KINDS: tuple[tuple[OpKind | Classifier, tuple[type, ...]], ...] = (
    (OpKind.INPUT, (keras.layers.InputLayer,)),
    (OpKind.CONV, (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)),
    (OpKind.DEPTHWISE_CONV, (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)),
    (
        OpKind.CONV_TRANSPOSE,
        (keras.layers.Conv1DTranspose, keras.layers.Conv2DTranspose, keras.layers.Conv3DTranspose),
    ),
    (OpKind.DENSE, (keras.layers.Dense,)),
    (OpKind.MATMUL, (numpy.Matmul, numpy.Einsum)),
    (OpKind.BATCH_NORM, (keras.layers.BatchNormalization,)),
    (OpKind.SCALE, (keras.layers.Rescaling, keras.layers.Normalization, LayerScale)),
    (_activation_kind, (keras.layers.Activation,)),
    (_relu_kind, (keras.layers.ReLU, ReLU)),
    (OpKind.RELU, (nn.Relu, nn.Relu6)),
    (
        OpKind.ACTIVATION,
        (
            *(keras.layers.LeakyReLU, keras.layers.Softmax, keras.layers.PReLU, keras.layers.ELU, numpy.Tanh),
            *(nn.Sigmoid, nn.HardSigmoid, nn.Silu, nn.HardSilu, nn.Gelu, nn.LeakyRelu, nn.Softmax, nn.Celu, nn.Elu),
            *(nn.Selu, nn.Softplus, nn.Softsign, nn.SoftShrink, nn.HardShrink, nn.HardTanh, nn.TanhShrink),
            *(nn.LogSigmoid, nn.LogSoftmax, nn.SparsePlus, nn.SparseSigmoid, nn.Squareplus, nn.Threshold),
        ),
    ),
    (OpKind.ADD, (keras.layers.Add, numpy.Add)),
    (OpKind.MULTIPLY, (keras.layers.Multiply, numpy.Multiply)),
    (OpKind.CONCAT, (keras.layers.Concatenate, numpy.Concatenate)),
    (
        OpKind.MAX_POOL,
        (
            *(keras.layers.MaxPooling1D, keras.layers.MaxPooling2D, keras.layers.MaxPooling3D, nn.MaxPool),
            *(keras.layers.GlobalMaxPooling1D, keras.layers.GlobalMaxPooling2D, keras.layers.GlobalMaxPooling3D),
        ),
    ),
    (
        OpKind.AVERAGE_POOL,
        (
            *(keras.layers.AveragePooling1D, keras.layers.AveragePooling2D, keras.layers.AveragePooling3D),
            *(keras.layers.GlobalAveragePooling1D, keras.layers.GlobalAveragePooling2D),
            *(keras.layers.GlobalAveragePooling3D, nn.AveragePool),
        ),
    ),
    (_mean_kind, (numpy.Mean,)),
    (OpKind.ZERO_PAD, (keras.layers.ZeroPadding1D, keras.layers.ZeroPadding2D, keras.layers.ZeroPadding3D)),
    (_up_sampling_kind, (keras.layers.UpSampling1D, keras.layers.UpSampling2D, keras.layers.UpSampling3D)),
    (
        OpKind.RESHAPE,
        (
            *(keras.layers.Cropping1D, keras.layers.Cropping2D, keras.layers.Cropping3D, keras.layers.Flatten),
            *(keras.layers.Reshape, keras.layers.Permute, keras.layers.RepeatVector, numpy.Reshape, numpy.Transpose),
            *(numpy.GetItem, numpy.Split, numpy.Squeeze, numpy.ExpandDims, numpy.Swapaxes, numpy.Moveaxis),
            *(numpy.Flip, numpy.Ravel, core.Unstack, nn.DepthToSpace, nn.SpaceToDepth),
        ),
    ),
    (_pad_kind, (numpy.Pad,)),
    (OpKind.IDENTITY, (*IDENTITY_LAYERS, numpy.Copy, core.StopGradient)),
    (
        OpKind.OTHER,
        (
            *(keras.layers.Subtract, keras.layers.Maximum, keras.layers.Minimum, keras.layers.Average),
            *(keras.layers.LayerNormalization,),
            *(
                keras.layers.AdaptiveAveragePooling1D,
                keras.layers.AdaptiveAveragePooling2D,
                keras.layers.AdaptiveAveragePooling3D,
            ),
            *(keras.layers.AdaptiveMaxPooling1D, keras.layers.AdaptiveMaxPooling2D, keras.layers.AdaptiveMaxPooling3D),
            *(keras.layers.Bidirectional, keras.layers.CenterCrop, keras.layers.ConvLSTM1D),
            *(keras.layers.ConvLSTM2D, keras.layers.ConvLSTM3D, keras.layers.Dot),
            *(keras.layers.Embedding, keras.layers.GRU, keras.layers.GroupNormalization),
            *(keras.layers.LSTM, keras.layers.RMSNormalization, keras.layers.RandomCrop),
            *(keras.layers.Resizing, keras.layers.SimpleRNN, keras.layers.UnitNormalization),
        ),
    ),
)
"""The kind of each type, or the function that says it for a layer of that type."""

_BUILT_IN: dict[type, OpKind | Classifier] = {layer_type: kind for kind, types in _KINDS for layer_type in types}

for _type, _kind in _BUILT_IN.items():
    register_kind(_type, _kind)


Expansion = Callable[..., keras.Model | None]
"""(layer, shapes of its inputs) → a Functional model that computes the same, with the layer's weights.

For an operation of `keras.ops`: (operation, shapes of its inputs, arguments of the call by name). The inputs of the
model are the tensors of the call in their order. `None` where there is no such model.
"""

_EXPANSIONS: dict[type, tuple[Expansion, Callable[[Any], bool]]] = {}

_FUSED = frozenset({keras.activations.linear, keras.activations.relu, keras.activations.relu6, None})
"""Activations that run inside a convolution's kernel: none, or a clip of its result."""


def _always(_: Any) -> bool:
    return True


def register_composite(*layer_types: type, when: Callable[[Any], bool] = _always) -> Callable[[Expansion], Expansion]:
    """Decorate the function that expands layers of these types, and of subclasses that compute the same.

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
    known = known_type(layer, _EXPANSIONS)
    if known is None:
        return None
    expansion, when = _EXPANSIONS[known]
    return expansion if when(layer) else None


_PARTS: dict[type, tuple[type, type]] = {
    keras.layers.SeparableConv1D: (keras.layers.DepthwiseConv1D, keras.layers.Conv1D),
    keras.layers.SeparableConv2D: (keras.layers.DepthwiseConv2D, keras.layers.Conv2D),
}


@register_composite(*_PARTS)
def expand_separable_conv(layer: Any, shapes: list[tuple[int | None, ...]]) -> keras.Model:
    """A depthwise convolution, and a pointwise one with the layer's name, bias and activation."""
    depthwise_type, pointwise_type = _PARTS[type(layer)]
    reach = (layer.kernel_size[0] - 1) * layer.dilation_rate[0]
    depthwise = depthwise_type(
        layer.kernel_size,
        strides=layer.strides,
        padding="valid" if layer.padding == "causal" else layer.padding,
        depth_multiplier=layer.depth_multiplier,
        data_format=layer.data_format,
        dilation_rate=layer.dilation_rate,
        use_bias=False,
        dtype=layer.dtype_policy,
        name=f"{layer.name}_depthwise",
    )
    pointwise = pointwise_type(
        layer.filters,
        1,
        data_format=layer.data_format,
        use_bias=layer.use_bias,
        activation=layer.activation,
        dtype=layer.dtype_policy,
        name=layer.name,
    )
    inputs = keras.Input(batch_shape=shapes[0])
    causal = layer.padding == "causal"
    padded = keras.layers.ZeroPadding1D((reach, 0), name=f"{layer.name}_padding")(inputs) if causal else inputs
    model = keras.Model(inputs, pointwise(depthwise(padded)), name=f"{layer.name}_composite")
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


def _activation_is_unknown(layer: Any) -> bool:
    return not _has_known_activation(layer)


def expand_inner_activation(layer: Any, shapes: list[tuple[int | None, ...]]) -> keras.Model:
    """A weighted layer with the layer's name, and its activation as a separate layer."""
    weighted = copy_by_settings(layer, known_type(layer, _EXPANSIONS), activation=None)
    function = layer.activation
    is_layer = isinstance(function, keras.layers.Layer)
    activation = (
        copy_by_settings(function)
        if is_layer
        else keras.layers.Activation(function, dtype=layer.dtype_policy, name=f"{layer.name}_activation")
    )
    inputs = keras.Input(batch_shape=shapes[0])
    model = keras.Model(inputs, activation(weighted(inputs)), name=f"{layer.name}_composite")
    weighted.set_weights(layer.get_weights()[: len(weighted.weights)])
    if is_layer and function.weights:  # such as those of a PReLU
        activation.set_weights(function.get_weights())
    return model


register_composite(
    *(keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D),
    *(keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D),
    *(keras.layers.Conv1DTranspose, keras.layers.Conv2DTranspose, keras.layers.Conv3DTranspose),
    when=_activation_is_separate,
)(expand_inner_activation)
register_composite(keras.layers.Dense, when=_activation_is_unknown)(expand_inner_activation)


@register_composite(keras.layers.TimeDistributed)
def expand_time_distributed(layer: Any, shapes: list[tuple[int | None, ...]]) -> keras.Model | None:
    """A call of the inner layer for each step in time, which share its weights."""
    batch, steps, *rest = shapes[0]
    if steps is None:
        return None
    inputs = keras.Input(batch_shape=(batch, steps, *rest))
    with unchanged(layer):
        made = [keras.ops.expand_dims(layer.layer(inputs[:, step]), 1) for step in range(steps)]
        joined = keras.ops.concatenate(made, 1) if steps > 1 else made[0]
        return keras.Model(inputs, joined, name=f"{layer.name}_composite")
