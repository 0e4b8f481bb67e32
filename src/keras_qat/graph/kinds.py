"""The kind of each layer and operation of Keras: a table by type, which subclasses inherit."""

from typing import Any

import keras
from keras.src.applications.convnext import LayerScale  # scales the residual branches of that network
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
