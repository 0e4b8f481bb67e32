"""Which function turns which Keras layer into ONNX nodes: a registry by type."""

from collections.abc import Callable
from typing import Any, TypeVar

import onnx_ir as ir

from keras_qat.errors import UnsupportedModelError
from keras_qat.export.onnx.emission import Emission, Step

Converter = Callable[[Emission, Step], ir.Value]
"""Adds the nodes of one step and returns its output value."""

F = TypeVar("F", bound=Converter)

_CONVERTERS: dict[type, Converter] = {}


def register_converter(*layer_types: type) -> Callable[[F], F]:
    """Decorate the function that converts these layer types, and their subclasses.

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
        if base in _CONVERTERS:
            return _CONVERTERS[base]
    raise UnsupportedModelError(
        f"The layer {layer.name!r} can't be exported to ONNX. Received: a {type(layer).__name__}, for which no "
        "converter is registered. Write one with `@keras_qat.register_converter(YourLayer)`, or replace the layer."
    )
