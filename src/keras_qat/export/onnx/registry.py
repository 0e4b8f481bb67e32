"""Which function turns which Keras layer into ONNX nodes: a registry by type."""

from collections.abc import Callable
from typing import Any, TypeVar

import onnx_ir as ir

from keras_qat.errors import UnsupportedModelError
from keras_qat.export.onnx.emission import Emission, Step

Converter = Callable[[Emission, Step], ir.Value | tuple[ir.Value, ...]]
"""Adds the nodes of one step and returns its output value, or several in the order of the Keras outputs."""

_FORWARD = ("call", "convolution_op")
"""The methods in which a layer says what it computes."""

F = TypeVar("F", bound=Converter)

_CONVERTERS: dict[type, Converter] = {}


def register_converter(*layer_types: type) -> Callable[[F], F]:
    """Decorate the function that converts these layer types, and the subclasses that compute the same.

    A subclass with a `call` of its own needs a converter of its own.

    Example:
        >>> import keras
        >>> class Negate(keras.layers.Layer):
        ...     def call(self, x):
        ...         return -x
        >>> @register_converter(Negate)
        ... def convert_negate(emission, step):
        ...     return emission.op("Neg", step.inputs, step.name, step.output_shape)
        >>> find_converter(Negate()) is convert_negate
        True
    """

    def register(function: F) -> F:
        for layer_type in layer_types:
            _CONVERTERS[layer_type] = function
        return function

    return register


def find_converter(layer: Any) -> Converter:
    """The converter of a layer.

    Raises:
        UnsupportedModelError: none is registered for its type.
    """
    for base in type(layer).__mro__:
        if base in _CONVERTERS and not _computes_otherwise(type(layer), base):
            return _CONVERTERS[base]
    raise UnsupportedModelError(
        f"The layer {layer.name!r} can't be exported to ONNX. Received: a {type(layer).__name__}, for which no "
        "converter is registered. Write one with `@keras_qat.register_converter(YourLayer)`, or replace the layer."
    )


def _computes_otherwise(layer_type: type, base: type) -> bool:
    """Whether a subclass has a forward pass of its own, which the converter of its base doesn't know."""
    return any(getattr(layer_type, name, None) is not getattr(base, name, None) for name in _FORWARD)
