"""A user's model: how to load it from its file, and how its images are preprocessed.

The preprocessing is what the user gives, or what the first layer of the model shows.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_qat.data import MEANINGS, OF_CHANNELS, Channels, Preprocessing
from keras_qat.errors import UnsupportedModelError, UserError
from keras_qat.files import load_keras_file, require_model_file
from keras_qat.graph import Graph, Node, Trace, known_type, trace
from keras_qat.types import OpKind

_API = (
    "Prepare its inputs yourself and use the Python API, which takes any arrays: plan, calibrate, apply_placement, "
    "fine_tune, export_onnx."
)

_SEEN_THROUGH = frozenset({OpKind.IDENTITY, OpKind.FAKE_QUANTIZE})
"""The operations that may stand before the layer that reads the image."""

_RANK = 4
_CHANNELS: Mapping[int, Channels] = {1: 1, 3: 3}

_PIXELS, _SPAN = 255.0, 64.0
"""A layer that brings 0 to 255 into a range of at most 64 reads pixels: of 0 to 1 at most a quarter would be left."""

_SMALLEST = 1e-7
"""The smallest standard deviation that Keras's Normalization divides by."""


def load_model_file(path: Path) -> Any:
    """Load a Keras model, quantized or not.

    Args:
        path: a `.keras` or `.h5` file, which may be of an earlier version of Keras.

    Returns:
        The `keras.Model`, not compiled.

    Raises:
        StorageError: If the file does not exist, is the folder of a SavedModel, or can't be read as a model: it is
            damaged, or it unpacks to more than 1 GB and to more than 100 times its size. The environment variable
            KERAS_QAT_UNPACK_LIMIT_GB raises that.

    Example:
        >>> load_model_file(Path("nowhere.keras"))
        Traceback (most recent call last):
        keras_qat.errors.StorageError: There is no such model file. ...
    """
    require_model_file(path)
    return load_keras_file(path)


@dataclass(frozen=True)
class _Image:
    """A model's only input.

    Args:
        tensor: its name in the graph.
        side: its height and width in pixels; `None` if the model reads images of any size.
        channels: 1 or 3.
        owner: what a message calls the model.
    """

    tensor: str
    side: int | None
    channels: Channels
    owner: str

    def __str__(self) -> str:
        side = "any" if self.side is None else self.side
        return f"{side} x {side} x {self.channels}"


def input_preprocessing(
    model: Any, given: str | Preprocessing | None = None, name: str | Path | None = None
) -> Preprocessing:
    """The preprocessing of a user's model.

    Nothing is guessed. Without `given`, only a model that begins with a `Rescaling` or `Normalization` of pixels, as
    EfficientNet and MobileNetV3 do, says enough: it reads raw pixels.

    Args:
        model: a built Functional or Sequential `keras.Model`, which reads images (batch, size, size, 1 or 3).
        given: a preprocessing, or text that `Preprocessing.parse` reads. For a model of one channel it becomes gray,
            whether it says so or not.
        name: what a message calls the model, such as its file; the model's name if not given.

    Returns:
        The preprocessing, with the model's size and channels.

    Raises:
        UnsupportedModelError: If the model has no graph, or does not read square images with their channels last.
        UserError: If `given` can't be parsed, does not fit the model or would normalize twice; or if it is not given
            and the model does not show its preprocessing.

    Example:
        >>> model = keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Rescaling(1 / 255)])
        >>> input_preprocessing(model)
        Preprocessing(mode='raw', size=28, resize=28, whole_pixels=False, channels=1)
        >>> input_preprocessing(model, "raw:28:32").resize
        32
    """
    traced = trace(model, only_run=True)
    image = _only_image(traced, str(name or model.name))
    first = _first_operations(traced.graph, image.tensor)
    reads_pixels = bool(first) and all(_reads_pixels(traced.calls[node.name].operation) for node in first)
    if given is not None:
        preprocessing = Preprocessing.parse(given) if isinstance(given, str) else given
        text = given if isinstance(given, str) else f"{given.mode}:{given.size}:{given.resize}"
        _require_fit(image, preprocessing, text)
        if reads_pixels and preprocessing.mode != "raw":
            raise UserError(
                f"The images would be normalized twice: the model begins with {_layers(first)}, which reads pixels "
                f"from 0 to 255. Received: --preprocessing {text} for {image.owner}. Leave it out, or give "
                f"raw:{preprocessing.size}."
            )
        return replace(preprocessing, channels=image.channels)
    if not reads_pixels:
        raise _unknown(image, first)
    if image.side is None:
        raise UserError(
            f"The model reads images of any size, so one must be chosen. Received: {image.owner}, with an input of "
            f"{image}. Give --preprocessing raw:SIZE, such as raw:224: it begins with {_layers(first)}."
        )
    return Preprocessing("raw", size=image.side, resize=image.side, channels=image.channels)


def _only_image(traced: Trace, owner: str) -> _Image:
    tensors = [ref.name for ref in keras.tree.flatten(traced.inputs)]
    shapes = {tensor: traced.shape(tensor) for tensor in tensors}
    received = f"{owner}, which reads " + "; ".join(f"{tensor} {shape}" for tensor, shape in shapes.items())
    if len(tensors) != 1:
        raise UnsupportedModelError(f"A run feeds one image to a model with one input. Received: {received}. {_API}")
    shape = shapes[tensors[0]]
    if len(shape) == _RANK and shape[3] not in _CHANNELS and shape[1] in _CHANNELS:
        raise UnsupportedModelError(
            f"A run feeds images with their channels last. Received: {received}. Build the model with "
            f"data_format='channels_last'. Or: {_API}"
        )
    if len(shape) != _RANK or shape[3] not in _CHANNELS:
        raise UnsupportedModelError(
            f"A run feeds images (batch, height, width, channels) with 1 or 3 channels. Received: {received}. {_API}"
        )
    _, height, width, channels = shape
    if None not in {height, width} and height != width:
        raise UnsupportedModelError(f"A run feeds square images. Received: {received}. {_API}")
    # If one side is fixed, the other one of a square is the same.
    return _Image(tensors[0], height or width, _CHANNELS[channels or 0], owner)


def _require_fit(image: _Image, preprocessing: Preprocessing, text: str) -> None:
    size = preprocessing.size
    if image.side not in {size, None}:
        raise UserError(
            f"The preprocessing makes images of {size} x {size} pixels, which the model doesn't read. "
            f"Received: --preprocessing {text} for {image.owner}, with an input of {image}. "
            f"Give it as MODE:{image.side} or MODE:{image.side}:RESIZE."
        )
    if preprocessing.channels < image.channels:
        raise UserError(
            f"The preprocessing makes gray images, and the model reads RGB. Received: --preprocessing {text} for "
            f"{image.owner}, with an input of {image}. Leave out ':gray'."
        )


def _first_operations(graph: Graph, tensor: str) -> Sequence[Node]:
    """The nodes that read the image, behind dropout and fake quantization."""
    nodes = [graph.by_name[edge.consumer] for edge in graph.consumers(tensor) if edge.consumer in graph.by_name]
    return [
        first
        for node in nodes
        for first in (_first_operations(graph, node.outputs[0]) if node.kind in _SEEN_THROUGH else [node])
    ]


def _reads_pixels(operation: Any) -> bool:
    """Whether the operation brings pixels from 0 to 255, and not numbers from 0 to 1, into a network's range."""
    kind = known_type(operation, _SPANS)
    return kind is not None and _SPANS[kind](operation) <= _SPAN


def _rescaled(layer: Any) -> float:
    return float(np.max(np.abs(layer.scale))) * _PIXELS


def _normalized(layer: Any) -> float:
    variance = getattr(layer, "variance", None)
    if variance is None:  # the layer is not adapted, or is an inverse that is not built
        return np.inf
    deviation = np.maximum(np.sqrt(keras.ops.convert_to_numpy(variance)), _SMALLEST)
    return float(np.max(deviation if layer.invert else 1 / deviation)) * _PIXELS


_SPANS: Mapping[type, Callable[[Any], float]] = {
    keras.layers.Rescaling: _rescaled,
    keras.layers.Normalization: _normalized,
}
"""The length of the range to which a layer brings 0 to 255."""


def _unknown(image: _Image, first: Sequence[Node]) -> UserError:
    size = image.side or "SIZE"
    modes = "\n".join(f"  {mode}: {MEANINGS[mode]}" for mode in MEANINGS if mode in OF_CHANNELS[image.channels])
    return UserError(
        f"It can't be seen from a model how its images were prepared. Received: {image.owner}, whose first layer is "
        f"{_layers(first)}, with an input of {image}. Give --preprocessing MODE:{size}, or "
        f"MODE:{size}:RESIZE where training cut out the centre, with the mode that it was trained with:\n{modes}"
    )


def _layers(nodes: Sequence[Node]) -> str:
    named = [f"the {getattr(node.layer_type, '__name__', 'layer')} {node.layer!r}" for node in nodes]
    return " and ".join(named) or "its output"
