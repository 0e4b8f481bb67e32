"""From the pixels of an image to the numbers that a network was trained on: resize, fit, make gray, normalize."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

import tensorflow as tf

from keras_qat.data.geometry import Fit, Geometry, Interpolation, cut, locate
from keras_qat.data.normalizations import NORMALIZATIONS, OF_CHANNELS, WHITE, Channels, Mode, of_channels, to_gray
from keras_qat.data.preprocessing_text import as_text, read_text
from keras_qat.errors import MANY, UserError, require_whole
from keras_qat.files import from_json_value, to_json_value
from keras_qat.types import UNLABELLED, Normalization

_MOST_PIXELS = 2**14
"""The longest side of a prepared image: with 3 channels of float32, such an image takes 3.2 GB."""

_ALWAYS = ("mode", "size", "resize", "whole_pixels", "channels")
"""The fields that are always written; the others only where they have another value than their default."""


@dataclass(frozen=True, repr=False)
class Preprocessing:
    """What is done to an image before the network sees it.

    Args:
        mode: `"caffe"` is RGB → BGR, minus ImageNet's mean; `"tf"` is x / 127.5 - 1; `"torch"` is x / 255, minus
            ImageNet's mean, over its standard deviation; `"raw"` leaves the values from 0 to 255 as they are; `"unit"`
            is x / 255; `"custom"` is what the argument `custom` says.
        size: the side of the network's input in pixels, or its (height, width) if it is not square.
        resize: with the fit `"crop"`, how large the image is before its centre is cut out: it is resized, with its
            aspect ratio kept, until it just covers a frame of the input's shape whose shorter side has `resize` pixels.
            For a square input, that makes the image's shorter side `resize`. At least the shorter side of the input,
            and equal to it with any other fit.
        whole_pixels: round the resized pixels to whole numbers before they are normalized, so that they fit uint8.
        channels: the channels of the network's input: 3, or 1 for gray, which only `"raw"`, `"unit"`, `"tf"` and
            `"custom"` have.
        fit: `"crop"` cuts out the centre; `"squash"` resizes the image to `size`, whatever its aspect ratio;
            `"letterbox"` resizes it to fit into `size`, keeps its aspect ratio and pads the rest on both sides.
        fill: the value of the padding of `"letterbox"`, from 0 to 255; it is normalized as the pixels are.
        interpolation: how the image is resized.
        antialias: whether an image that becomes smaller is filtered, as Pillow does. `tf.image.resize`, and with it
            `keras.utils.image_dataset_from_directory` and `keras.layers.Resizing`, don't unless they are told to.
        custom: the normalization of the mode `"custom"`; `None` for the other modes.

    Raises:
        UserError: If the mode is unknown or does not have that number of channels, 1 <= `size` <= `resize` is not
            true, or arguments exclude each other.

    Example:
        >>> Preprocessing("caffe", size=224, resize=256).for_size(32)
        Preprocessing(mode='caffe', size=32, resize=32, whole_pixels=False, channels=3)
        >>> detector = Preprocessing("unit", size=(96, 160), resize=96, fit="letterbox", fill=114)
        >>> detector.height, detector.width, str(detector)
        (96, 160, 'unit:96x160:letterbox=114')
    """

    mode: Mode | Literal["custom"]
    size: int | tuple[int, ...]
    resize: int
    whole_pixels: bool = False
    channels: Channels = 3
    fit: Fit = "crop"
    fill: int = 0
    interpolation: Interpolation = "bilinear"
    antialias: bool = True
    custom: Normalization | None = None

    def __post_init__(self) -> None:
        """Settle the numbers, and refuse settings that can't be computed."""
        sides = self.size if isinstance(self.size, tuple | list) else (self.size, self.size)
        if len(sides) != 2:  # noqa: PLR2004
            raise UserError(
                f"`size` must be a whole number, or two: height and width. Received: {self.size}. Give such as 224 or "
                "(96, 160)."
            )
        bounds = (-MANY, _MOST_PIXELS)
        sides = tuple(require_whole("size", side, *bounds) for side in sides)
        settled = {
            "size": sides[0] if len(set(sides)) == 1 else sides,
            "resize": require_whole("resize", self.resize, *bounds),
            "fill": require_whole("fill", self.fill, 0, int(WHITE)),
            "custom": of_channels(self.custom, self.channels),
        }
        for name, value in settled.items():
            object.__setattr__(self, name, value)
        for name, kind in (("fit", Fit), ("interpolation", Interpolation)):
            if getattr(self, name) not in get_args(kind):
                raise UserError(
                    f"Unknown {name}. Received: {name}={getattr(self, name)!r}. Use one of {get_args(kind)}."
                )
        self._require_fitting_size()
        self._require_normalization()

    def _require_fitting_size(self) -> None:
        shorter = min(self._sides)
        if not 1 <= shorter <= self.resize:
            raise UserError(
                "The crop must be at least 1 pixel and fit in the resized image. "
                f"Received: size={self.size}, resize={self.resize}. Give 1 <= size <= resize."
            )
        if max(self._frame) > _MOST_PIXELS:
            raise UserError(
                f"Before the crop, an image would have at least {self._frame[0]} x {self._frame[1]} pixels. Received: "
                f"size={self.size}, resize={self.resize}. Give a `resize` nearer to {shorter}."
            )
        if self.fit != "crop" and self.resize != shorter:
            raise UserError(
                f"Nothing is cut out of an image with the fit {self.fit!r}. Received: size={self.size}, "
                f"resize={self.resize}. Leave out RESIZE, which is then {shorter}."
            )
        if self.fit != "letterbox" and self.fill:
            raise UserError(
                "Only images with the fit 'letterbox' are padded. "
                f"Received: fit={self.fit!r}, fill={self.fill}. Leave `fill` out."
            )

    def _require_normalization(self) -> None:
        if self.mode != "custom" and self.mode not in NORMALIZATIONS:
            known = (*get_args(Mode), "custom")
            raise UserError(f"Unknown preprocessing mode. Received: mode={self.mode!r}. Use one of {known}.")
        if (self.mode == "custom") != (self.custom is not None):
            raise UserError(
                "The mode 'custom' is a normalization of its own, and no other mode takes one. "
                f"Received: mode={self.mode!r}, custom={self.custom}. Give both or neither."
            )
        if self.channels not in OF_CHANNELS or self.mode not in (*OF_CHANNELS[self.channels], "custom"):
            raise UserError(
                "A network reads RGB, or gray in a mode that treats all channels alike. "
                f"Received: mode={self.mode!r}, channels={self.channels!r}. Give channels=3, or channels=1 with one of "
                f"{', '.join(OF_CHANNELS[1])}."
            )
        if self.custom is not None and self.custom.channels != self.channels:
            raise UserError(
                "A network reads gray images only if red, green and blue are treated alike. "
                f"Received: channels={self.channels}, with a normalization of {self.custom.channels} channel(s), "
                f"{self.custom}. Give one number for each channel."
            )

    def __repr__(self) -> str:
        """The call that makes this value, without the arguments that are rarely given and have their default."""
        shown = (f"{field}={value!r}" for field, value in self._written().items())
        return f"Preprocessing({', '.join(shown)})"

    def __str__(self) -> str:
        """The text that `parse` reads; it does not say `whole_pixels`.

        Example:
            >>> str(Preprocessing("unit", size=28, resize=32, channels=1))
            'unit:28:32:gray'
        """
        return as_text(self)

    def _written(self) -> dict[str, Any]:
        values = {field.name: (getattr(self, field.name), field.default) for field in fields(self)}
        return {name: value for name, (value, default) in values.items() if name in _ALWAYS or value != default}

    @property
    def height(self) -> int:
        """The height of the network's input in pixels."""
        return self._sides[0]

    @property
    def width(self) -> int:
        """The width of the network's input in pixels."""
        return self._sides[1]

    @property
    def _sides(self) -> tuple[int, int]:
        return (self.size, self.size) if isinstance(self.size, int) else (self.size[0], self.size[1])

    @property
    def _frame(self) -> tuple[int, int]:
        """Height and width of the frame that an image is resized to."""
        shorter = min(self._sides)
        height, width = ((side * self.resize + shorter // 2) // shorter for side in self._sides)
        return height, width

    @property
    def normalization(self) -> Normalization:
        """The arithmetic of `normalize`, as a value that a file can hold."""
        return self.custom or OF_CHANNELS[self.channels][self.mode]

    def prepare(self, image: Any) -> Any:
        """Resize, fit, make gray for a network of one channel, and normalize one image; runs inside `tf.data`.

        Args:
            image: uint8 RGB tensor of shape (h, w, 3), of any height and width.

        Returns:
            float32 tensor of shape (height, width, channels).

        Example:
            >>> import numpy as np
            >>> white = np.full((20, 30, 3), 255, "uint8")
            >>> out = Preprocessing("tf", size=8, resize=10).prepare(white)
            >>> out.shape, float(out[0, 0, 0])
            (TensorShape([8, 8, 3]), 1.0)
        """
        return self.finish(self.crop(image))

    def crop(self, image: Any) -> Any:
        """Resize an image and fit it to the network's input, as `fit` says.

        Args:
            image: uint8 RGB tensor of shape (h, w, 3).

        Returns:
            float32 tensor of shape (height, width, 3), values from 0 to 255; a little beyond with an `interpolation`
            that overshoots, such as `"bicubic"`.
        """
        image = tf.convert_to_tensor(image)
        geometry = self.geometry(*tf.unstack(tf.shape(image)[:2]))
        sides = (geometry.rows, geometry.columns)
        resized = tf.image.resize(image, sides, method=self.interpolation, antialias=self.antialias)
        return cut(tf.cast(resized, tf.float32), geometry, self._sides, self.fill)

    def crop_mask(self, mask: Any) -> Any:
        """Resize and fit the class map of an image as `crop` does the image; each class is that of the nearest pixel.

        Args:
            mask: tensor of integers of shape (h, w, 1), of the height and width of its image.

        Returns:
            int32 tensor of shape (height, width, 1); -1, no class, where the image is padded.

        Example:
            >>> left_and_right = tf.constant([[[1], [2]]])
            >>> wide = Preprocessing("unit", size=4, resize=4, fit="letterbox").crop_mask(left_and_right)
            >>> wide[..., 0].numpy().tolist()
            [[-1, -1, -1, -1], [1, 1, 2, 2], [1, 1, 2, 2], [-1, -1, -1, -1]]
        """
        mask = tf.cast(mask, tf.int32)
        geometry = self.geometry(*tf.unstack(tf.shape(mask)[:2]))
        resized = tf.image.resize(mask, (geometry.rows, geometry.columns), method="nearest")
        return cut(resized, geometry, self._sides, UNLABELLED)

    def geometry(self, height: Any, width: Any) -> Geometry:
        """Where the network's input lies in an image of this height and width.

        A point (y, x) of the image, in pixels from its upper left corner, is at (y · rows / height - top,
        x · columns / width - left) of the input.

        Args:
            height: the height of the image in pixels, an integer or an integer tensor.
            width: the width of the image in pixels, likewise.

        Returns:
            The size to which the image is resized, and where the input begins in it, as int32 scalars.

        Example:
            >>> unit = Preprocessing("unit", size=224, resize=256)
            >>> [int(number) for number in unit.geometry(480, 640)]
            [256, 341, 16, 58]
        """
        return locate(self.fit, height, width, self._frame, self._sides)

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
        pixels = to_gray(pixels) if self.channels == 1 else pixels
        pixels = tf.clip_by_value(tf.round(pixels), 0.0, WHITE) if self.whole_pixels else pixels
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

    def for_size(self, size: int | tuple[int, ...]) -> "Preprocessing":
        """The same preprocessing for an input of another size, with nothing cropped from an image of its shape.

        Args:
            size: the side of the input in pixels, or its (height, width).
        """
        return replace(self, size=size, resize=min(size) if isinstance(size, tuple | list) else size)

    def raw(self) -> "Preprocessing":
        """The same pixels as whole numbers, not normalized: the input of a file that normalizes by itself.

        Example:
            >>> Preprocessing("caffe", size=224, resize=256).raw()
            Preprocessing(mode='raw', size=224, resize=256, whole_pixels=True, channels=3)
        """
        return replace(self, mode="raw", whole_pixels=True, custom=None)

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON can hold them; `from_dict` reads them back.

        Example:
            >>> Preprocessing("tf", size=(96, 160), resize=96, fit="squash").to_dict()
            {'mode': 'tf', 'size': [96, 160], 'resize': 96, 'whole_pixels': False, 'channels': 3, 'fit': 'squash'}
        """
        return {name: to_json_value(value) for name, value in self._written().items()}

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
        """Make a preprocessing from "MODE:SIZE" or "MODE:SIZE:RESIZE", with options behind it.

        SIZE is a side, or HEIGHTxWIDTH. Without RESIZE nothing is cropped from an image of the input's shape. The
        options, in any order:

        | option | meaning |
        | --- | --- |
        | squash | `fit="squash"` |
        | letterbox or letterbox=VALUE | `fit="letterbox"`, padded with 0 or VALUE |
        | gray | one channel |
        | nearest, bicubic, lanczos3 or lanczos5 | `interpolation`, in place of bilinear |
        | aliased | `antialias=False` |
        | divisor=NUMBERS | of the mode "custom": y = x / divisor - offset; one number, or with commas one a channel |
        | offset=NUMBERS | likewise |
        | bgr | of the mode "custom": the channels of x are blue, green, red |

        Raises:
            UserError: If the text has another form, or a part of it is invalid.

        Example:
            >>> Preprocessing.parse("caffe:224:256") == Preprocessing("caffe", size=224, resize=256)
            True
            >>> Preprocessing.parse("unit:28:gray") == Preprocessing("unit", size=28, resize=28, channels=1)
            True
            >>> Preprocessing.parse("unit:96x160:letterbox=114").fill
            114
            >>> Preprocessing.parse("custom:224:divisor=58,57,57:offset=2.1,2,1.8").custom.divisor
            (58.0, 57.0, 57.0)
        """
        return cls.from_dict(read_text(text, tuple(NORMALIZATIONS)))
