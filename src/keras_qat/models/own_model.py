"""A user's model: how to load it from its file, and how its images are preprocessed.

The preprocessing is what the user gives, what a preprocessor of KerasHub says that is saved with the model, or what the
first layer of the model shows.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras.src.ops import core, numpy  # the operations behind `keras.ops` calls in a graph

from keras_qat.data import MEANINGS, OF_CHANNELS, Channels, Preprocessing, converter_preprocessing, read_preprocessing
from keras_qat.errors import UnsupportedModelError, UserError
from keras_qat.files import load_keras_file, require_model_file
from keras_qat.graph import Node, Trace, kind_of, known_type, trace
from keras_qat.types import OpKind

_API = (
    "Prepare its inputs yourself and use the Python API, which takes any arrays: plan, calibrate, apply_placement, "
    "fine_tune, export_onnx."
)

_ARRAYS = (
    "Inputs of other shapes come as arrays, which the model is fed as they are: they have no preprocessing, and none "
    "can be embedded in a file."
)

_SEEN_THROUGH = frozenset({OpKind.IDENTITY, OpKind.FAKE_QUANTIZE})
"""The kinds of operations that may stand before the layer that reads the image: augmentation, dropout and the like."""

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
        height: its height in pixels; `None` if the model reads images of any height.
        width: its width in pixels, likewise.
        channels: 1 or 3.
        owner: what a message calls the model.
    """

    tensor: str
    height: int | None
    width: int | None
    channels: Channels
    owner: str

    def __str__(self) -> str:
        sides = ("any" if side is None else side for side in (self.height, self.width))
        return f"{' x '.join(map(str, sides))} x {self.channels}"

    @property
    def size(self) -> int | tuple[int, int] | None:
        """The size of its images as `Preprocessing` has it; where one side may be any, that of a square."""
        height, width = self.height or self.width, self.width or self.height
        if height is None or width is None:
            return None
        return height if height == width else (height, width)

    @property
    def size_text(self) -> str:
        """The size as `--preprocessing` spells it."""
        size = self.size or "SIZE"
        return f"{size[0]}x{size[1]}" if isinstance(size, tuple) else str(size)


def input_preprocessing(
    model: Any, given: str | Preprocessing | None = None, name: str | Path | None = None
) -> Preprocessing:
    """The preprocessing of a user's model.

    Nothing is guessed. Without `given`, two kinds of models say enough: a task of KerasHub, by the image converter of
    its preprocessor; and a model that begins with a `Rescaling` or `Normalization` of pixels, as EfficientNet and
    MobileNetV3 do, behind random augmentation or not: it reads raw pixels.

    Args:
        model: a built Functional or Sequential `keras.Model`, which reads images (batch, height, width, 1 or 3).
        given: a preprocessing, or text that `read_preprocessing` reads. For a model of one channel it becomes gray,
            whether it says so or not.
        name: what a message calls the model, such as its file; the model's name if not given.

    Returns:
        The preprocessing, with the model's size and channels.

    Raises:
        UnsupportedModelError: If the model has no graph, or does not read images with their channels last.
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
    first = _first_operations(traced, image.tensor)
    reads_pixels = bool(first) and all(_reads_pixels(traced.calls[node.name].operation) for node in first)
    if given is not None:
        preprocessing = read_preprocessing(given) if isinstance(given, str) else given
        text = str(given)
        _require_fit(image, preprocessing, text)
        if reads_pixels and preprocessing.mode != "raw":
            raise UserError(
                f"The images would be normalized twice: the model begins with {_layers(first)}, which reads pixels "
                f"from 0 to 255. Received: --preprocessing {text} for {image.owner}. Leave it out, or give "
                f"{replace(preprocessing, mode='raw', custom=None)}."
            )
        return replace(preprocessing, channels=image.channels)
    declared = _of_keras_hub(model, image)
    if declared is not None:
        _require_fit(image, declared, str(declared))
        return declared
    if not reads_pixels:
        raise _unknown(image, first)
    if image.size is None:
        raise UserError(
            f"The model reads images of any size, so one must be chosen. Received: {image.owner}, with an input of "
            f"{image}. Give --preprocessing raw:SIZE, such as raw:224: it begins with {_layers(first)}."
        )
    return Preprocessing("raw", size=1, resize=1, channels=image.channels).for_size(image.size)


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
            "Images are prepared for models that read (batch, height, width, channels) with 1 or 3 channels. "
            f"{_ARRAYS} Received: {received}. {_API}"
        )
    _, height, width, channels = shape
    return _Image(tensors[0], height, width, _CHANNELS[channels or 0], owner)


def _of_keras_hub(model: Any, image: _Image) -> Preprocessing | None:
    """What the preprocessor of a KerasHub task does to images; `None` if the model has none."""
    # A task can't be loaded without KerasHub, so there is no need to import it.
    hub: Any = sys.modules.get("keras_hub")
    preprocessor = model.preprocessor if hub is not None and isinstance(model, hub.models.Task) else None
    converter = getattr(preprocessor, "image_converter", None)
    if converter is None:
        return None
    # Most subclasses only name their backbone; those that compute something else have a `call` of their own.
    if type(converter).call is not hub.layers.ImageConverter.call:
        raise UserError(
            "The preprocessor of a KerasHub model has an image converter of its own kind, which isn't known. Received: "
            f"{type(converter).__name__} in {image.owner}. Give --preprocessing MODE:{image.size_text}, or feed arrays "
            "that the preprocessor made."
        )
    return converter_preprocessing(converter.get_config(), image.channels, f"the preprocessor of {image.owner}")


def _require_fit(image: _Image, preprocessing: Preprocessing, text: str) -> None:
    height, width, fits = preprocessing.height, preprocessing.width, image.size_text
    if image.height not in {height, None} or image.width not in {width, None}:
        raise UserError(
            f"The preprocessing makes images of {height} x {width} pixels, which the model doesn't read. "
            f"Received: --preprocessing {text} for {image.owner}, with an input of {image}. "
            f"Give it as MODE:{fits} or MODE:{fits}:RESIZE."
        )
    if preprocessing.channels < image.channels:
        raise UserError(
            f"The preprocessing makes gray images, and the model reads RGB. Received: --preprocessing {text} for "
            f"{image.owner}, with an input of {image}. Leave out ':gray'."
        )


def _first_operations(traced: Trace, tensor: str) -> Sequence[Node]:
    """The nodes that read the image, behind augmentation, dropout, fake quantization and what changes nothing."""
    graph = traced.graph
    nodes = [graph.by_name[edge.consumer] for edge in graph.consumers(tensor) if edge.consumer in graph.by_name]
    return [
        first
        for node in nodes
        for first in (_first_operations(traced, node.outputs[0]) if _passes_on(traced, node) else [node])
    ]


def _passes_on(traced: Trace, node: Node) -> bool:
    """Whether a node passes pixels on as they are."""
    operation = traced.calls[node.name].operation
    # The node's own kind is `OTHER` where it passes integers on.
    if kind_of(operation) in _SEEN_THROUGH:
        return True
    kind = known_type(operation, _WITHIN_A_SHAPE)
    if kind is None:
        return False
    before, after = (traced.shape(tensor)[1:] for tensor in (node.inputs[0], node.outputs[0]))
    return not _WITHIN_A_SHAPE[kind] or (before == after and None not in before)


_WITHIN_A_SHAPE: Mapping[type, bool] = {
    core.Cast: False,
    numpy.Reshape: True,
    keras.layers.Reshape: True,
    keras.layers.Resizing: True,
    keras.layers.CenterCrop: True,
    keras.layers.Cropping2D: True,
    keras.layers.ZeroPadding2D: True,
}
"""Operations that pass pixels on as they are; if `True`, only where the shape of the image stays the same."""


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
    size = image.size_text
    modes = "\n".join(f"  {mode}: {MEANINGS[mode]}" for mode in MEANINGS if mode in OF_CHANNELS[image.channels])
    return UserError(
        f"It can't be seen from a model how its images were prepared. Received: {image.owner}, whose first layer is "
        f"{_layers(first)}, with an input of {image}. Give --preprocessing MODE:{size}, or "
        f"MODE:{size}:RESIZE where training cut out the centre, with the mode that it was trained with:\n{modes}\n"
        "If training squashed whole images into that size, as keras.utils.image_dataset_from_directory does, put "
        ":squash:aliased behind it; if it padded them, :letterbox."
    )


def _layers(nodes: Sequence[Node]) -> str:
    named = [f"the {getattr(node.layer_type, '__name__', 'layer')} {node.layer!r}" for node in nodes]
    return " and ".join(named) or "its output"
