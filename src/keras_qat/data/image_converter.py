"""The preprocessing that KerasHub's `ImageConverter` computes, read from its configuration without KerasHub.

It resizes, then computes y = x · scale + offset (https://keras.io/keras_hub/api/preprocessing_layers/image_converter/).
A task of KerasHub has one in its preprocessor; a preset has one in its `preprocessor.json`, `task.json` and
`image_converter.json`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_qat.data.geometry import Fit, Interpolation
from keras_qat.data.normalizations import OF_CHANNELS
from keras_qat.data.preprocessing import Preprocessing
from keras_qat.errors import UserError
from keras_qat.files import from_json_value, read_json, to_json_value
from keras_qat.types import Normalization

_NESTED = ("preprocessor", "image_converter")
"""Where the configuration of a task, and that of a preprocessor, holds the next one."""

_CLOSE = 1e-6
"""Relative and absolute difference within which a scale and an offset are those of a named mode."""

_ADVICE = "Give --preprocessing MODE:SIZE with what comes nearest, or feed arrays that the converter made."


@dataclass(frozen=True)
class _Converter:
    """The configuration of an `ImageConverter`, with the defaults of its arguments; the last five change no pixel.

    An argument that isn't listed belongs to a subclass, or to another version, that does something more.
    """

    image_size: tuple[int, ...] | None = None
    scale: float | tuple[float, ...] | None = None
    offset: float | tuple[float, ...] | None = None
    crop_to_aspect_ratio: bool = True
    pad_to_aspect_ratio: bool = False
    interpolation: Interpolation = "bilinear"
    antialias: bool = False
    bounding_box_format: Any = None
    data_format: Any = None
    name: Any = None
    trainable: Any = None
    dtype: Any = None


def converter_preprocessing(config: Mapping[str, Any], channels: int, owner: str) -> Preprocessing:
    """The preprocessing of a converter.

    KerasHub crops and pads before it resizes, and a `Preprocessing` after that. So what is cropped or padded may lie up
    to half a pixel of the input elsewhere.

    Args:
        config: the configuration of an `ImageConverter`, from its `get_config()`.
        channels: the channels of the network's input, 1 or 3.
        owner: what a message calls the converter.

    Returns:
        The preprocessing; its mode has a name if it is one of those.

    Raises:
        UserError: If the converter does not resize, or does what no `Preprocessing` can.

    Example:
        >>> config = {"image_size": (96, 160), "scale": 1 / 255, "pad_to_aspect_ratio": True, "antialias": True}
        >>> str(converter_preprocessing(config | {"crop_to_aspect_ratio": False}, 3, "the converter"))
        'unit:96x160:letterbox'
    """
    read = from_json_value(
        _Converter,
        to_json_value(config),
        problem=f"Not all that an image converter of KerasHub does can be done here: in {owner}",
        remedy=_ADVICE,
    )
    if read.image_size is None:
        raise UserError(
            f"An image converter of KerasHub must say to which size images are resized. Received: image_size=None in "
            f"{owner}. Set it, as in `model.preprocessor.image_size = (224, 224)`, or give --preprocessing."
        )
    normalization = _normalization(read, channels, owner)
    mode = next((mode for mode, known in OF_CHANNELS[channels].items() if _same(known, normalization)), "custom")
    return Preprocessing.from_dict(
        {
            "mode": mode,
            "size": list(read.image_size),
            "resize": min(read.image_size),
            "channels": channels,
            "fit": _fit(read),
            "interpolation": read.interpolation,
            "antialias": read.antialias,
            "custom": to_json_value(normalization) if mode == "custom" else None,
        }
    )


def _fit(converter: _Converter) -> Fit:
    if converter.pad_to_aspect_ratio:
        return "letterbox"
    return "crop" if converter.crop_to_aspect_ratio else "squash"


def _normalization(converter: _Converter, channels: int, owner: str) -> Normalization:
    """The scale and the offset as a divisor and an offset that is subtracted."""
    try:
        scale = np.broadcast_to(1.0 if converter.scale is None else converter.scale, (channels,))
        offset = np.broadcast_to(0.0 if converter.offset is None else converter.offset, (channels,))
        with np.errstate(divide="ignore"):  # a scale of 0 is refused below
            divisor = tuple((1 / scale).tolist())
        return Normalization(reverse_channels=False, divisor=divisor, offset=tuple((-offset).tolist()))
    except ValueError as error:
        raise UserError(
            f"An image converter of KerasHub scales {channels} channel(s) by finite numbers other than 0. Received: "
            f"scale={converter.scale} and offset={converter.offset} in {owner}. {_ADVICE}"
        ) from error


def _same(one: Normalization, other: Normalization) -> bool:
    pairs = ((one.divisor, other.divisor), (one.offset, other.offset))
    same_order = one.reverse_channels == other.reverse_channels
    return same_order and all(np.allclose(a, b, rtol=_CLOSE, atol=_CLOSE) for a, b in pairs)


def read_preprocessing(text: str) -> Preprocessing:
    """Read a preprocessing from what the user gives: its text, or the path of a KerasHub preset's file.

    Args:
        text: what `Preprocessing.parse` reads, or the path of a `preprocessor.json`, `task.json` or
            `image_converter.json`.

    Raises:
        StorageError: If there is no such file.
        UserError: If the text can't be understood, or the file has no image converter that is a `Preprocessing`.

    Example:
        >>> read_preprocessing("unit:28:gray").channels
        1
        >>> read_preprocessing("resnet_50/preprocessor.json")
        Traceback (most recent call last):
        keras_qat.errors.StorageError: Can't read resnet_50/preprocessor.json: ...
    """
    path = Path(text)
    return Preprocessing.parse(text) if path.suffix != ".json" else _of_preset(path)


def _of_preset(path: Path) -> Preprocessing:
    value = read_json(path)
    for name in _NESTED:
        inner = value.get("config", {}).get(name) if isinstance(value, dict) else None
        value = value if inner is None else inner
    if not isinstance(value, dict) or not isinstance(value.get("config"), dict):
        raise UserError(
            f"This file describes no preprocessor. Received: {str(path)!r}. Give the preprocessor.json, task.json or "
            "image_converter.json of a KerasHub preset, or MODE:SIZE."
        )
    # Whether the network reads gray images is known where the preprocessing meets the network.
    return converter_preprocessing(value["config"], 3, str(path))
