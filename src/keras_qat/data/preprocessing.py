"""From the bytes of a picture to the numbers a network was trained on: resize, centre crop, normalize.

"caffe" (ResNet V1), "tf" (ResNet V2) and "torch" (DenseNet) are the modes of `keras.applications`
(https://keras.io/api/applications/, `imagenet_utils.preprocess_input`). A network with a Rescaling layer of its own,
such as EfficientNet, reads "raw" pixels.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

import tensorflow as tf

from keras_qat.errors import UserError
from keras_qat.types import Normalization

Mode = Literal["caffe", "tf", "torch", "raw"]

_ONES, _ZEROS = (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)

_PIXELS = 255.0
"""The largest value of a pixel."""

# Mean and standard deviation of ImageNet's training images: the first blue, green, red, from 0 to 255; the others red,
# green, blue, from 0 to 1.
_CAFFE_MEAN_BGR = (103.939, 116.779, 123.68)
_TORCH_MEAN = (0.485, 0.456, 0.406)
_TORCH_STD = (0.229, 0.224, 0.225)


def _standardize(mean: tuple[float, ...], std: tuple[float, ...]) -> Normalization:
    """(x / 255 - mean) / std with one division: x / (255 · std) - mean / std."""
    (m_r, m_g, m_b), (s_r, s_g, s_b) = mean, std
    return Normalization(
        reverse_channels=False,
        divisor=(_PIXELS * s_r, _PIXELS * s_g, _PIXELS * s_b),
        offset=(m_r / s_r, m_g / s_g, m_b / s_b),
    )


NORMALIZATIONS: Mapping[Mode, Normalization] = {
    "caffe": Normalization(reverse_channels=True, divisor=_ONES, offset=_CAFFE_MEAN_BGR),
    "tf": Normalization(reverse_channels=False, divisor=(127.5, 127.5, 127.5), offset=_ONES),
    "torch": _standardize(_TORCH_MEAN, _TORCH_STD),
    "raw": Normalization(reverse_channels=False, divisor=_ONES, offset=_ZEROS),
}


@dataclass(frozen=True)
class Preprocessing:
    """What is done to an image before the network sees it.

    Args:
        mode: `"caffe"` is RGB → BGR, minus ImageNet's mean; `"tf"` is x / 127.5 - 1; `"torch"` is x / 255, minus
            ImageNet's mean, over its standard deviation; `"raw"` leaves the values from 0 to 255 as they are.
        size: side of the centre crop, which is the side of the network's input.
        resize: length of the image's shorter side before the crop, at least `size`.
        whole_pixels: round the resized pixels to whole numbers before they are normalized, so that they fit uint8.

    Raises:
        UserError: an unknown mode, or sides that don't fit each other.

    Example:
        >>> Preprocessing("caffe", size=224, resize=256).for_size(32)
        Preprocessing(mode='caffe', size=32, resize=32, whole_pixels=False)
    """

    mode: Mode
    size: int
    resize: int
    whole_pixels: bool = False

    def __post_init__(self) -> None:
        """Refuse what can't be computed."""
        if self.mode not in NORMALIZATIONS:
            raise UserError(f"Unknown preprocessing mode. Received: mode={self.mode!r}. Use one of {get_args(Mode)}.")
        if not 1 <= self.size <= self.resize:
            raise UserError(
                "The crop must be at least 1 pixel and fit in the resized image. "
                f"Received: size={self.size}, resize={self.resize}. Give 1 <= size <= resize."
            )

    @property
    def normalization(self) -> Normalization:
        """What `normalize` computes, as a value that a file can hold."""
        return NORMALIZATIONS[self.mode]

    def prepare(self, image: Any) -> Any:
        """Resize, crop and normalize one image; runs inside `tf.data`.

        Args:
            image: uint8 RGB tensor of shape (height, width, 3), of any height and width.

        Returns:
            float32 tensor of shape (size, size, 3).

        Example:
            >>> import numpy as np
            >>> white = np.full((20, 30, 3), 255, "uint8")
            >>> out = Preprocessing("tf", size=8, resize=10).prepare(white)
            >>> out.shape, float(out[0, 0, 0])
            (TensorShape([8, 8, 3]), 1.0)
        """
        return self.finish(self.crop(image))

    def crop(self, image: Any) -> Any:
        """Resize and cut out the centre: the geometry of evaluation.

        The shorter side becomes `resize` (bilinear with antialiasing, aspect kept), then the centre is cut out.

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
        top = (rows - self.size) // 2
        left = (columns - self.size) // 2
        return tf.slice(resized, (top, left, 0), (self.size, self.size, 3))

    def finish(self, pixels: Any) -> Any:
        """Round the pixels if they are to be whole, and normalize them.

        Args:
            pixels: float32 RGB values from 0 to 255, of shape (..., 3), already of the network's size.

        Returns:
            float32 tensor of the same shape.
        """
        whole = tf.clip_by_value(tf.round(pixels), 0.0, _PIXELS) if self.whole_pixels else pixels
        return self.normalize(whole)

    def normalize(self, images: Any) -> Any:
        """Scale pixel values as the network expects them: y = x' / divisor - offset, rounded after each step.

        A `tf.function` around it may multiply by the reciprocal instead; `tf.data` and eager code divide.

        Args:
            images: RGB values from 0 to 255, of shape (..., 3).

        Returns:
            float32 tensor of the same shape.
        """
        n = self.normalization
        x = tf.cast(images, tf.float32)
        # Six times as fast as x[..., ::-1], and most of what an image costs after it is decoded.
        x = tf.reverse(x, [-1]) if n.reverse_channels else x
        x = x / tf.constant(n.divisor, tf.float32) if n.divides else x
        return x - tf.constant(n.offset, tf.float32) if n.shifts else x

    def for_size(self, size: int) -> "Preprocessing":
        """The same normalization for a square input of `size`, with nothing cropped from a square image."""
        return replace(self, size=size, resize=size)

    def raw(self) -> "Preprocessing":
        """The same pixels as whole numbers, not normalized: what a file that normalizes by itself reads.

        Example:
            >>> Preprocessing("caffe", size=224, resize=256).raw()
            Preprocessing(mode='raw', size=224, resize=256, whole_pixels=True)
        """
        return replace(self, mode="raw", whole_pixels=True)

    def to_dict(self) -> dict[str, str | int | bool]:
        """The fields as JSON can hold them; `from_dict` reads them back."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "Preprocessing":
        """Read what `to_dict` wrote.

        Raises:
            UserError: a field is missing, unknown or invalid.

        Example:
            >>> Preprocessing.from_dict({"mode": "tf", "size": 299, "resize": 342}).resize
            342
        """
        try:
            sides = {name: int(fields[name]) for name in ("size", "resize")}
            return cls(**{**fields, **sides, "whole_pixels": _boolean(fields.get("whole_pixels", False))})
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"Can't read the preprocessing. Received: {dict(fields)!r}. Give 'mode', 'size' and 'resize', and "
                "'whole_pixels' if you like, as Preprocessing.to_dict() writes them."
            ) from error

    @classmethod
    def parse(cls, text: str) -> "Preprocessing":
        """Read "MODE:SIZE" or "MODE:SIZE:RESIZE"; without RESIZE nothing is cropped from a square image.

        Raises:
            UserError: the text has another form, or a part is invalid.

        Example:
            >>> Preprocessing.parse("caffe:224:256") == Preprocessing("caffe", size=224, resize=256)
            True
            >>> Preprocessing.parse("tf:32").resize
            32
        """
        mode, *sides = text.split(":")
        if len(sides) not in {1, 2} or not all(side.isascii() and side.isdigit() for side in sides):
            raise UserError(
                f"Can't read the preprocessing. Received: {text!r}. Give MODE:SIZE or MODE:SIZE:RESIZE, such as "
                f"caffe:224:256, with a mode of {', '.join(get_args(Mode))}."
            )
        size, resize = int(sides[0]), int(sides[-1])
        return cls.from_dict({"mode": mode, "size": size, "resize": resize})


def _boolean(value: Any) -> bool:
    """A JSON boolean; a text such as "false" would be true."""
    if not isinstance(value, bool):
        raise TypeError(value)
    return value
