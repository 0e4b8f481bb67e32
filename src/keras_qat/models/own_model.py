"""A `.keras` file that somebody named.

How a user's own model wants its images: as the user says, or as its first layer shows.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_qat.data import MEANINGS, OF_CHANNELS, Channels, Preprocessing
from keras_qat.errors import StorageError, UnsupportedModelError, UserError
from keras_qat.files import require_model_file
from keras_qat.graph import Graph, Node, Trace, trace
from keras_qat.types import OpKind


def load_model_file(path: Path) -> Any:
    """Load a Keras model, quantized or not.

    Args:
        path: of a .keras file.

    Raises:
        StorageError: there is no such file, or it can't be read as a model.

    Example:
        >>> load_model_file(Path("nowhere.keras"))
        Traceback (most recent call last):
        keras_qat.errors.StorageError: There is no such model file. ...
    """
    require_model_file(path)
    import keras

    import keras_qat.layers  # noqa: F401  (Keras knows quantized layers by that)

    try:
        return keras.saving.load_model(path, compile=False)
    except Exception as error:  # zip, JSON, HDF5 and unknown layers each fail in their own way.
        raise StorageError(
            f"The file can't be read as a Keras model: {' '.join(str(error).split())}. Received: {str(path)!r}. "
            "Save it again with `model.save`; a model with layers of your own must be read from Python."
        ) from error


_API = (
    "Prepare its inputs yourself and use the Python API, which takes any arrays: plan, calibrate, apply_placement, "
    "fine_tune, export_onnx."
)

_SEEN_THROUGH = frozenset({OpKind.IDENTITY, OpKind.FAKE_QUANTIZE})
"""What may stand before the layer that reads the image."""

_RANK = 4
_CHANNELS: Mapping[int, Channels] = {1: 1, 3: 3}

_PIXELS, _SPAN = 255.0, 64.0
"""A layer that brings 0 to 255 within a range this long reads pixels; of numbers from 0 to 1 it would leave nothing."""

_SMALLEST = 1e-7
"""The standard deviation that Keras's Normalization takes for 0."""


@dataclass(frozen=True)
class _Image:
    """A model's only input.

    Args:
        tensor: its name in the graph.
        sides: height and width; `None` where any will do.
        channels: 1 or 3.
        owner: what a message calls the model.
    """

    tensor: str
    sides: tuple[int | None, int | None]
    channels: Channels
    owner: str


def input_preprocessing(
    model: Any, given: str | Preprocessing | None = None, name: str | Path | None = None
) -> Preprocessing:
    """What must be done to an image before a model of the user's own reads it.

    Nothing is guessed: by itself only a model that begins with a `Rescaling` or `Normalization` of pixels, as
    EfficientNet and MobileNetV3 do, says enough. Those read raw pixels.

    Args:
        model: a built Functional or Sequential `keras.Model`, which reads images (batch, size, size, 1 or 3).
        given: a preprocessing, or text as `Preprocessing.parse` reads it; a model of one channel makes it gray, whether
            or not it says so.
        name: what a message calls the model, such as its file; the model's own name if not given.

    Returns:
        The preprocessing, of the model's size and channels.

    Raises:
        UnsupportedModelError: the model has no graph, or isn't one of square images with their channels last.
        UserError: what is given can't be read, doesn't fit or would normalize twice, or is needed.

    Example:
        >>> model = keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Rescaling(1 / 255)])
        >>> input_preprocessing(model)
        Preprocessing(mode='raw', size=28, resize=28, whole_pixels=False, channels=1)
        >>> input_preprocessing(model, "raw:28:32").resize
        32
    """
    found = trace(model)
    image = _only_image(found, str(name or model.name))
    first = _first_operations(found.graph, image.tensor)
    pixels = bool(first) and all(_reads_pixels(found.calls[node.name].operation) for node in first)
    if given is not None:
        wanted = Preprocessing.parse(given) if isinstance(given, str) else given
        text = given if isinstance(given, str) else f"{wanted.mode}:{wanted.size}:{wanted.resize}"
        said = _said(image, wanted, text)
        if pixels and said.mode != "raw":
            raise UserError(
                f"The images would be normalized twice: the model begins with {_layers(first)}, which reads pixels "
                f"from 0 to 255. Received: --preprocessing {text} for {image.owner}. Leave it out, or give "
                f"raw:{said.size}."
            )
        return said
    if not pixels:
        raise _unknown(image, first)
    size = image.sides[0]
    if size is None:
        raise UserError(
            f"The model reads images of any size, so one must be chosen. Received: {image.owner}, with an input of "
            f"{_described(image)}. Give --preprocessing raw:SIZE, such as raw:224: it begins with {_layers(first)}."
        )
    return Preprocessing("raw", size=size, resize=size, channels=image.channels)


def _only_image(found: Trace, owner: str) -> _Image:
    tensors = [ref.name for ref in keras.tree.flatten(found.inputs)]
    shapes = {tensor: found.shape(tensor) for tensor in tensors}
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
    # Where one side is fixed, a square has the other one, too.
    side = height or width
    return _Image(tensors[0], (side, side), _CHANNELS[channels or 0], owner)


def _said(image: _Image, said: Preprocessing, text: str) -> Preprocessing:
    if image.sides[0] not in {said.size, None}:
        raise UserError(
            f"The preprocessing makes images of {said.size} x {said.size} pixels, which the model doesn't read. "
            f"Received: --preprocessing {text} for {image.owner}, with an input of {_described(image)}. "
            f"Give it as MODE:{image.sides[0]} or MODE:{image.sides[0]}:RESIZE."
        )
    if said.channels < image.channels:
        raise UserError(
            f"The preprocessing makes gray images, and the model reads RGB. Received: --preprocessing {text} for "
            f"{image.owner}, with an input of {_described(image)}. Leave out ':gray'."
        )
    return replace(said, channels=image.channels)


def _first_operations(graph: Graph, tensor: str) -> Sequence[Node]:
    """The nodes that read the image; dropout and fake quantization are seen through."""
    nodes = [graph.by_name[edge.consumer] for edge in graph.consumers(tensor) if edge.consumer in graph.by_name]
    return [
        first
        for node in nodes
        for first in (_first_operations(graph, node.outputs[0]) if node.kind in _SEEN_THROUGH else [node])
    ]


def _reads_pixels(operation: Any) -> bool:
    """Whether the operation brings pixels from 0 to 255, and not numbers from 0 to 1, into a network's range."""
    return any(kind in _SPANS and _SPANS[kind](operation) <= _SPAN for kind in type(operation).__mro__)


def _rescaled(layer: Any) -> float:
    return float(np.max(np.abs(layer.scale))) * _PIXELS


def _normalized(layer: Any) -> float:
    variance = getattr(layer, "variance", None)
    if variance is None:  # not adapted, or an inverse that was not built
        return np.inf
    deviation = np.maximum(np.sqrt(keras.ops.convert_to_numpy(variance)), _SMALLEST)
    return float(np.max(deviation if layer.invert else 1 / deviation)) * _PIXELS


_SPANS: Mapping[type, Callable[[Any], float]] = {
    keras.layers.Rescaling: _rescaled,
    keras.layers.Normalization: _normalized,
}
"""How long the range is that a layer makes of 0 to 255."""


def _unknown(image: _Image, first: Sequence[Node]) -> UserError:
    size = image.sides[0] or "SIZE"
    modes = "\n".join(f"  {mode}: {MEANINGS[mode]}" for mode in MEANINGS if mode in OF_CHANNELS[image.channels])
    return UserError(
        f"It can't be seen from a model how its images were prepared. Received: {image.owner}, whose first layer is "
        f"{_layers(first)}, with an input of {_described(image)}. Give --preprocessing MODE:{size}, or "
        f"MODE:{size}:RESIZE where training cut out the centre, with the mode that it was trained with:\n{modes}"
    )


def _described(image: _Image) -> str:
    height, width = ("any" if side is None else side for side in image.sides)
    return f"{height} x {width} x {image.channels}"


def _layers(nodes: Sequence[Node]) -> str:
    named = [f"the {getattr(node.layer_type, '__name__', 'layer')} {node.layer!r}" for node in nodes]
    return " and ".join(named) or "its output"
