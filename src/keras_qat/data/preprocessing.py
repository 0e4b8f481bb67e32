"""From the pixels of an image to the numbers that a network was trained on: resize, crop, make gray, normalize.

The modes "caffe" (ResNet V1), "tf" (ResNet V2) and "torch" (DenseNet) are those of `keras.applications`
(https://keras.io/api/applications/, `imagenet_utils.preprocess_input`). A network with a Rescaling layer, such as
EfficientNet, reads "raw" pixels; "unit" is what most tutorials use.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

import tensorflow as tf

from keras_qat.errors import MANY, UserError, settle_numbers
from keras_qat.files import from_json_value
from keras_qat.types import Normalization

Mode = Literal["caffe", "tf", "torch", "raw", "unit"]

Channels = Literal[1, 3]
"""The channels of a network's input: 1 is gray, 3 is RGB."""

_GRAY = "gray"

_RED, _BLUE = 0.299, 0.114
"""The weights of the luma of ITU-R BT.601; green has the rest, 0.587."""

_PIXELS = 255.0
"""The largest value of a pixel."""

_ONES, _ZEROS = (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)

# Mean and standard deviation of ImageNet's training images: the first as blue, green, red, from 0 to 255; the others as
# red, green, blue, from 0 to 1.
_CAFFE_MEAN_BGR = (103.939, 116.779, 123.68)
_TORCH_MEAN = (0.485, 0.456, 0.406)
_TORCH_STD = (0.229, 0.224, 0.225)

# (x / 255 - mean) / std with one division: x / (255 · std) - mean / std.
_TORCH = Normalization(
    reverse_channels=False,
    divisor=tuple(_PIXELS * std for std in _TORCH_STD),
    offset=tuple(mean / std for mean, std in zip(_TORCH_MEAN, _TORCH_STD, strict=True)),
)

NORMALIZATIONS: Mapping[Mode, Normalization] = {
    "caffe": Normalization(reverse_channels=True, divisor=_ONES, offset=_CAFFE_MEAN_BGR),
    "tf": Normalization(reverse_channels=False, divisor=(127.5, 127.5, 127.5), offset=_ONES),
    "torch": _TORCH,
    "raw": Normalization(reverse_channels=False, divisor=_ONES, offset=_ZEROS),
    "unit": Normalization(reverse_channels=False, divisor=(_PIXELS, _PIXELS, _PIXELS), offset=_ZEROS),
}

GRAY_NORMALIZATIONS: Mapping[Mode, Normalization] = {
    "tf": Normalization(reverse_channels=False, divisor=(127.5,), offset=(1.0,)),
    "raw": Normalization(reverse_channels=False, divisor=(1.0,), offset=(0.0,)),
    "unit": Normalization(reverse_channels=False, divisor=(_PIXELS,), offset=(0.0,)),
}
"""The modes for one channel; the other modes have different numbers for red, green and blue."""

OF_CHANNELS: Mapping[int, Mapping[Mode, Normalization]] = {1: GRAY_NORMALIZATIONS, 3: NORMALIZATIONS}
"""What each mode computes, by the number of channels of the network's input."""

_SIDE = re.compile("[0-9]{1,9}")

_MOST_PIXELS = 2**14
"""The longest side of a prepared image: with 3 channels of float32, such an image takes 3.2 GB."""

MEANINGS: Mapping[Mode, str] = {
    "unit": "x / 255, from 0 to 1: most networks that people train themselves",
    "raw": "x, from 0 to 255: networks that rescale inside, such as EfficientNet, MobileNetV3, ConvNeXt",
    "tf": "x / 127.5 - 1, from -1 to 1: ResNetV2, MobileNet, MobileNetV2, Inception, Xception",
    "torch": "x / 255, minus ImageNet's mean, over its standard deviation: DenseNet, networks from PyTorch",
    "caffe": "BGR, minus ImageNet's mean: ResNet, VGG",
}
"""One line about each mode, for users who must choose one; the likeliest first."""


@dataclass(frozen=True)
class Preprocessing:
    """What is done to an image before the network sees it.

    Args:
        mode: `"caffe"` is RGB → BGR, minus ImageNet's mean; `"tf"` is x / 127.5 - 1; `"torch"` is x / 255, minus
            ImageNet's mean, over its standard deviation; `"raw"` leaves the values from 0 to 255 as they are; `"unit"`
            is x / 255.
        size: the side of the centre crop in pixels, which is the side of the network's input.
        resize: the length of the image's shorter side before the crop in pixels, at least `size`.
        whole_pixels: round the resized pixels to whole numbers before they are normalized, so that they fit uint8.
        channels: the channels of the network's input: 3, or 1 for gray, which only `"raw"`, `"unit"` and `"tf"` have.

    Raises:
        UserError: If the mode is unknown or does not have that number of channels, or 1 <= `size` <= `resize` is not
            true.

    Example:
        >>> Preprocessing("caffe", size=224, resize=256).for_size(32)
        Preprocessing(mode='caffe', size=32, resize=32, whole_pixels=False, channels=3)
    """

    mode: Mode
    size: int
    resize: int
    whole_pixels: bool = False
    channels: Channels = 3

    def __post_init__(self) -> None:
        """Refuse settings that can't be computed."""
        sides = (-MANY, _MOST_PIXELS)
        settle_numbers(self, size=sides, resize=sides)
        if self.mode not in NORMALIZATIONS:
            raise UserError(f"Unknown preprocessing mode. Received: mode={self.mode!r}. Use one of {get_args(Mode)}.")
        if not 1 <= self.size <= self.resize:
            raise UserError(
                "The crop must be at least 1 pixel and fit in the resized image. "
                f"Received: size={self.size}, resize={self.resize}. Give 1 <= size <= resize."
            )
        if self.mode not in OF_CHANNELS.get(self.channels, {}):
            raise UserError(
                "A network reads RGB, or gray in a mode that treats all channels alike. "
                f"Received: mode={self.mode!r}, channels={self.channels!r}. Give channels=3, or channels=1 with one of "
                f"{', '.join(OF_CHANNELS[1])}."
            )

    @property
    def normalization(self) -> Normalization:
        """The arithmetic of `normalize`, as a value that a file can hold."""
        return OF_CHANNELS[self.channels][self.mode]

    def prepare(self, image: Any) -> Any:
        """Resize, crop, make gray for a network of one channel, and normalize one image; runs inside `tf.data`.

        Args:
            image: uint8 RGB tensor of shape (height, width, 3), of any height and width.

        Returns:
            float32 tensor of shape (size, size, channels).

        Example:
            >>> import numpy as np
            >>> white = np.full((20, 30, 3), 255, "uint8")
            >>> out = Preprocessing("tf", size=8, resize=10).prepare(white)
            >>> out.shape, float(out[0, 0, 0])
            (TensorShape([8, 8, 3]), 1.0)
        """
        return self.finish(self.crop(image))

    def crop(self, image: Any) -> Any:
        """Make the shorter side `resize` (bilinear with antialiasing, aspect kept), then cut out the centre.

        Args:
            image: uint8 RGB tensor of shape (height, width, 3).

        Returns:
            float32 tensor of shape (size, size, 3), values from 0 to 255.
        """
        image = tf.convert_to_tensor(image)
        height, width = tf.unstack(tf.shape(image)[:2])
        shorter = tf.minimum(height, width)
        # Integer arithmetic, rounding half up: the shorter side is `resize` exactly.
        rows = (height * self.resize + shorter // 2) // shorter
        columns = (width * self.resize + shorter // 2) // shorter
        resized = tf.image.resize(image, (rows, columns), method="bilinear", antialias=True)
        top, left = (rows - self.size) // 2, (columns - self.size) // 2
        return tf.slice(resized, (top, left, 0), (self.size, self.size, 3))

    def finish(self, pixels: Any) -> Any:
        """Make the pixels gray for a network of one channel, round them with `whole_pixels`, and normalize them.

        Args:
            pixels: float32 RGB values from 0 to 255, of shape (..., 3), already of the network's size.

        Returns:
            float32 tensor of shape (..., channels).

        Example:
            >>> red = tf.constant([[[255.0, 0.0, 0.0]]])
            >>> Preprocessing("raw", 1, 1, whole_pixels=True, channels=1).finish(red).numpy().tolist()
            [[[76.0]]]
        """
        pixels = _to_gray(pixels) if self.channels == 1 else pixels
        pixels = tf.clip_by_value(tf.round(pixels), 0.0, _PIXELS) if self.whole_pixels else pixels
        return self.normalize(pixels)

    def normalize(self, images: Any) -> Any:
        """Scale pixel values as the network expects them: y = x' / divisor - offset, rounded after each step.

        `tf.data` and eager code divide; a `tf.function` around this call may multiply by the reciprocal instead.

        Args:
            images: RGB or gray values from 0 to 255, of shape (..., channels).

        Returns:
            float32 tensor of the same shape.
        """
        n = self.normalization
        x = tf.cast(images, tf.float32)
        # Six times as fast as x[..., ::-1], which took most of the time of an image after it is decoded.
        x = tf.reverse(x, [-1]) if n.reverse_channels else x
        x = x / tf.constant(n.divisor, tf.float32) if n.divides else x
        return x - tf.constant(n.offset, tf.float32) if n.shifts else x

    def for_size(self, size: int) -> "Preprocessing":
        """The same preprocessing for an input of side `size`, with nothing cropped from a square image."""
        return replace(self, size=size, resize=size)

    def raw(self) -> "Preprocessing":
        """The same pixels as whole numbers, not normalized: the input of a file that normalizes by itself.

        Example:
            >>> Preprocessing("caffe", size=224, resize=256).raw()
            Preprocessing(mode='raw', size=224, resize=256, whole_pixels=True, channels=3)
        """
        return replace(self, mode="raw", whole_pixels=True)

    def to_dict(self) -> dict[str, str | int | bool]:
        """The fields as JSON can hold them; `from_dict` reads them back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "Preprocessing":
        """Make a preprocessing from the fields that `to_dict` returns.

        Raises:
            UserError: If a field is missing, unknown or invalid.

        Example:
            >>> Preprocessing.from_dict({"mode": "tf", "size": 299, "resize": 342}).resize
            342
        """
        return from_json_value(
            cls,
            fields,
            problem="Can't read the preprocessing",
            remedy="Give 'mode', 'size' and 'resize', and 'whole_pixels' and 'channels' if you like, as "
            "Preprocessing.to_dict() writes them.",
        )

    @classmethod
    def parse(cls, text: str) -> "Preprocessing":
        """Make a preprocessing from "MODE:SIZE" or "MODE:SIZE:RESIZE", with ":gray" behind it for one channel.

        Without RESIZE nothing is cropped from a square image.

        Raises:
            UserError: If the text has another form, or a part of it is invalid.

        Example:
            >>> Preprocessing.parse("caffe:224:256") == Preprocessing("caffe", size=224, resize=256)
            True
            >>> Preprocessing.parse("unit:28:gray") == Preprocessing("unit", size=28, resize=28, channels=1)
            True
        """
        mode, *sides = text.removesuffix(f":{_GRAY}").split(":")
        if len(sides) not in {1, 2} or not all(map(_SIDE.fullmatch, sides)):
            raise UserError(
                f"Can't read the preprocessing. Received: {text!r}. Give MODE:SIZE or MODE:SIZE:RESIZE, such as "
                f"caffe:224:256, with a mode of {', '.join(get_args(Mode))}; for a network of one channel with "
                f":{_GRAY} behind it, such as unit:28:{_GRAY}."
            )
        channels = 1 if text.endswith(f":{_GRAY}") else 3
        return cls.from_dict({"mode": mode, "size": int(sides[0]), "resize": int(sides[-1]), "channels": channels})


def _to_gray(pixels: Any) -> Any:
    """The luma of ITU-R BT.601, 0.299 R + 0.587 G + 0.114 B, as in Pillow's mode "L" and Keras's `load_img`.

    A pixel that is gray already keeps its value to the bit; `tf.image.rgb_to_grayscale` makes 254.97 of 255.

    Args:
        pixels: float32 RGB tensor of shape (..., 3).

    Returns:
        float32 tensor of shape (..., 1).

    Example:
        >>> _to_gray(tf.constant([[255.0, 0.0, 0.0], [77.7, 77.7, 77.7]])).numpy().round(3).tolist()
        [[76.245...], [77.69...]]
    """
    red, green, blue = tf.split(pixels, 3, axis=-1)
    return green + _RED * (red - green) + _BLUE * (blue - green)
