"""Independent copies of a model, so that the caller's is never trained."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import keras
import numpy as np

from keras_qat.errors import UnsupportedModelError
from keras_qat.layers import FakeQuantize
from keras_qat.types import RangeMode


def clone(model: keras.Model, *, precision: str = "float32", range_mode: RangeMode = "fixed") -> keras.Model:
    """Return a copy with the same layers, weights (non-trainable ones too) and `trainable` flags, uncompiled.

    Args:
        model: what to copy. It isn't touched.
        precision: `"float32"` leaves each layer's dtype policy as it is. Another policy becomes that of all layers but
            those that give the model's outputs, whose softmax needs float32.
        range_mode: of all `FakeQuantize` layers.

    Raises:
        UnsupportedModelError: Keras can't clone the model (a subclass without a graph, for example).

    Example:
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> clone(model).count_params(), clone(model) is model
        (3, False)
    """
    require_graph(model)
    try:
        copy = keras.models.clone_model(model, clone_function=_copier(model, precision, range_mode), recursive=True)
        copy.set_weights(model.get_weights())
    except (ValueError, TypeError, NotImplementedError) as error:
        raise _unsupported(model, str(error)) from error
    for source, target in zip(all_layers(model), all_layers(copy), strict=True):
        # Outer layers come first: setting a flag sets those within, which are then set one by one.
        target.trainable = source.trainable
    for source, target in zip(model.weights, copy.weights, strict=True):
        target.trainable = source.trainable
    for layer in all_layers(copy):
        if isinstance(layer, FakeQuantize):
            layer.amax.trainable = layer.trainable and layer.range_mode == "learned"
    return copy


def require_graph(model: keras.Model) -> None:
    """Refuse a model whose layers can't be told.

    Raises:
        UnsupportedModelError: a subclass of `keras.Model`, or a Sequential model that isn't built.
    """
    if not getattr(model, "inputs", None):
        raise _unsupported(model, "it has no graph")


def _unsupported(model: keras.Model, why: str) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"Keras can't clone the model to train a copy of it: {why}. Received: {type(model).__name__} {model.name!r}. "
        "Use a functional or Sequential model whose layers all have `get_config`."
    )


def _copier(model: keras.Model, precision: str, range_mode: RangeMode) -> Callable[[Any], Any]:
    outputs = list(_output_layers(model))

    def copied(layer: Any) -> Any:
        config = layer.get_config()
        if isinstance(layer, FakeQuantize):
            config["range_mode"] = range_mode
        if precision != "float32" and "dtype" in config and not any(layer is output for output in outputs):
            config["dtype"] = precision
        return type(layer).from_config(config)

    return copied


def _output_layers(model: keras.Model) -> Iterator[Any]:
    """The layers that give the model's outputs; where a model within gives one, its own."""
    for tensor in getattr(model, "outputs", None) or ():  # a subclass without a graph is refused later
        operation = tensor._keras_history.operation  # noqa: SLF001 - Keras has no public way
        if isinstance(operation, keras.Model):
            yield from _output_layers(operation)
        else:
            yield operation


def all_layers(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """Yield the model and each layer within it, at any depth, an outer layer before its inner ones."""
    # Keras has no public walk that enters composite layers, and `model.layers` doesn't.
    yield from model._flatten_layers(include_self=True, recursive=True)  # noqa: SLF001


def fingerprint(model: keras.Model) -> str:
    """Return a SHA-256 of the layers' classes and settings, names aside, and of every weight and whether it trains."""
    digest = hashlib.sha256()
    for layer in all_layers(model):
        digest.update(f"{type(layer).__name__} {layer.trainable} {_settings(layer)};".encode())
    for weight in model.weights:
        array = np.ascontiguousarray(keras.ops.convert_to_numpy(weight))
        digest.update(f"{array.shape} {array.dtype} {weight.trainable};".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _settings(layer: Any) -> str:
    """The layer's configuration as text that is the same in every process."""
    if isinstance(layer, keras.Model):
        return ""  # that of its layers, who come one by one
    try:
        config = layer.get_config()
    except NotImplementedError:  # cloning says so, better
        return ""
    return json.dumps(_nameless(config), sort_keys=True, default=_told)


def _nameless(value: Any) -> Any:
    """Layers that were given no name have another one in the next process; inner layers too."""
    if isinstance(value, Mapping):
        named = "dtype" in value  # a layer's; the name of a dtype policy says all of it
        return {str(key): _nameless(item) for key, item in value.items() if not (named and key == "name")}
    return [_nameless(item) for item in value] if isinstance(value, list | tuple) else value


def _told(value: Any) -> Any:
    """What JSON doesn't know: numbers and arrays of NumPy by their values, others by their class."""
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else type(value).__name__
