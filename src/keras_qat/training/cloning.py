"""Independent copies of a model, so that training never changes the caller's model; and fingerprints of models."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import numpy as np

from keras_qat import transform
from keras_qat.errors import UnsupportedModelError
from keras_qat.graph import layer_settings, plain_type, trace
from keras_qat.layers import FakeQuantize
from keras_qat.text import one_line
from keras_qat.types import RangeMode


def clone(model: keras.Model, *, precision: str = "float32", range_mode: RangeMode = "fixed") -> keras.Model:
    """Return an uncompiled copy with the same layers, weights (non-trainable ones too) and `trainable` flags.

    Args:
        model: the model to copy, which isn't changed.
        precision: `"float32"` leaves each layer's dtype policy as it is. Any other policy is set on all layers except
            those that give the model's outputs, because a softmax needs float32.
        range_mode: the range mode of all `FakeQuantize` layers of the copy.

    Raises:
        UnsupportedModelError: If the model can't be copied, for example a subclass without a graph.

    Example:
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> clone(model).count_params(), clone(model) is model
        (3, False)
    """
    require_graph(model)
    copier = _copier(model, precision, range_mode)
    try:
        copy = _copy_layer_by_layer(model, copier)
    except Exception:  # noqa: BLE001 - a layer that isn't made from its own configuration raises anything
        copy = _copy_as_read(model, copier)
    for layer in all_layers(copy):
        if isinstance(layer, FakeQuantize):
            layer.amax.trainable = layer.trainable and layer.range_mode == "learned"
    return copy


def _copy_layer_by_layer(model: keras.Model, copier: Callable[..., Any]) -> keras.Model:
    """A copy with the model's own layers, nested as they are."""
    copy = keras.models.clone_model(model, clone_function=copier, recursive=True)
    copy.set_weights(model.get_weights())
    for source, target in zip(all_layers(model), all_layers(copy), strict=True):
        # Outer layers come first: setting their flag sets those of their inner layers, which are corrected next.
        target.trainable = source.trainable
    for source, target in zip(model.weights, copy.weights, strict=True):
        target.trainable = source.trainable
    return copy


def _copy_as_read(model: keras.Model, copier: Callable[..., Any]) -> keras.Model:
    """A flat copy, in which the layers of the user's own are replaced by what their `call` uses."""

    def copy_layer(name: str, layer: Any) -> Any:
        is_layer = isinstance(layer, keras.layers.Layer)
        return copier(layer, name) if is_layer else transform.copy_layer(name, layer)

    try:
        return transform.rebuild(trace(model), copy_layer)
    except Exception as error:
        raise _unsupported(model, one_line(error)) from error


def require_graph(model: keras.Model) -> None:
    """Refuse a model without a graph of layers.

    Raises:
        UnsupportedModelError: If the model is a subclass of `keras.Model` without a graph, or an unbuilt Sequential
            model.
    """
    if not getattr(model, "inputs", None):
        raise _unsupported(model, "it has no graph")


def _unsupported(model: keras.Model, why: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"The model can't be copied, to train the copy: {why}. Received: {type(model).__name__} {model.name!r}. "
        "Use a functional or Sequential model whose layers have a `get_config`, or a `call` of Keras layers and "
        "`keras.ops`."
    )


def _copier(model: keras.Model, precision: str, range_mode: RangeMode) -> Callable[..., Any]:
    outputs = list(_output_layers(model))

    def copy(layer: Any, name: str | None = None) -> Any:
        kind: Any = plain_type(layer)
        config = layer.get_config() if isinstance(layer, keras.Model) else layer_settings(layer, kind)
        if name is not None:
            config["name"] = name
        if isinstance(layer, FakeQuantize):
            config["range_mode"] = range_mode
        if precision != "float32" and "dtype" in config and not any(layer is output for output in outputs):
            config["dtype"] = precision
        return kind.from_config(config)

    return copy


def _output_layers(model: keras.Model) -> Iterator[Any]:
    """Yield the layers that give the model's outputs; for an inner model, the layers that give its outputs."""
    for tensor in getattr(model, "outputs", None) or ():  # an inner model without a graph, which Keras refuses to clone
        operation = tensor._keras_history.operation  # noqa: SLF001 - Keras has no public access
        if isinstance(operation, keras.Model):
            yield from _output_layers(operation)
        else:
            yield operation


def all_layers(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """Yield the model and all layers within it at any depth, an outer layer before its inner layers."""
    # `model.layers` doesn't enter composite layers, and Keras has no public method that does.
    yield from model._flatten_layers(include_self=True, recursive=True)  # noqa: SLF001


def fingerprint(model: keras.Model) -> str:
    """Return the SHA-256 of a model, in hexadecimal.

    It covers the class and settings of each layer, except names, and the value and `trainable` flag of each weight.
    """
    digest = hashlib.sha256()
    for layer in all_layers(model):
        digest.update(f"{type(layer).__name__} {layer.trainable} {_settings(layer)};".encode())
    for weight in model.weights:
        array = np.ascontiguousarray(keras.ops.convert_to_numpy(weight))
        digest.update(f"{array.shape} {array.dtype} {weight.trainable};".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _settings(layer: Any) -> str:
    """Return the layer's configuration as text that is the same in every process."""
    if isinstance(layer, keras.Model):
        return ""  # its layers are hashed one by one
    try:
        config = layer.get_config()
    except Exception:  # noqa: BLE001 - functions of the user's own, which Keras can't serialize, raise anything
        return ""
    return json.dumps(_nameless(config), sort_keys=True, default=_plain)


def _nameless(value: Any) -> Any:
    """Remove the names of layers at any depth, because a layer without a given name has another one in each process."""
    if isinstance(value, Mapping):
        is_layer = "dtype" in value  # a dtype policy, by contrast, is described by its name alone
        return {str(key): _nameless(item) for key, item in value.items() if not (is_layer and key == "name")}
    return [_nameless(item) for item in value] if isinstance(value, list | tuple) else value


def _plain(value: Any) -> Any:
    """Convert what JSON doesn't support: NumPy numbers and arrays to their values, anything else to its class name."""
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else type(value).__name__
