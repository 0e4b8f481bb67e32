"""Which quantized layer stands in for which float layer."""

from typing import Any

import keras

from keras_qat.errors import UnsupportedModelError
from keras_qat.layers.weighted import QuantizedConv2D, QuantizedDense, QuantizedDepthwiseConv2D
from keras_qat.types import QuantSpec

_QUANTIZED: dict[type, type] = {}


def register_quantized_layer(float_type: type, quantized_type: type) -> None:
    """Let `quantized_type` stand in for `float_type`.

    Args:
        float_type: a layer type with a kernel.
        quantized_type: its subclass that accepts a `weight_spec` and holds the same weights in the same order.
    """
    _QUANTIZED[float_type] = quantized_type


def quantized_layer(layer: Any, spec: QuantSpec, name: str) -> Any:
    """A new, unbuilt layer like `layer` that quantizes its weights.

    Args:
        layer: the float layer; it is not changed.
        spec: how its kernel is quantized.
        name: the new layer's name.

    Raises:
        UnsupportedModelError: no quantized layer is registered for exactly this type.
    """
    quantized_type = _QUANTIZED.get(type(layer))
    if quantized_type is None:
        known = ", ".join(sorted(t.__name__ for t in _QUANTIZED))
        raise UnsupportedModelError(
            f"No quantized layer stands in for {layer.name!r}. Received: a {type(layer).__name__}; known are {known}. "
            "Register one with `keras_qat.layers.register_quantized_layer(float_type, quantized_type)`."
        )
    return quantized_type.from_config({**layer.get_config(), "name": name, "weight_spec": spec})  # type: ignore[attr-defined]


register_quantized_layer(keras.layers.Conv2D, QuantizedConv2D)
register_quantized_layer(keras.layers.DepthwiseConv2D, QuantizedDepthwiseConv2D)
register_quantized_layer(keras.layers.Dense, QuantizedDense)
