"""From the bytes of a picture to the numbers a network was trained on: resize, centre crop, normalize.

The two modes are those of `keras.applications`
(https://keras.io/api/applications/resnet/): "caffe" (ResNet V1) and "tf" (ResNet V2).
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

import tensorflow as tf

from keras_qat.errors import UserError

Mode = Literal["caffe", "tf"]

# Mean of ImageNet's training images, in the order blue, green, red.
_CAFFE_MEAN_BGR = (103.939, 116.779, 123.68)


def _caffe(image: Any) -> Any:
    return image[..., ::-1] - tf.constant(_CAFFE_MEAN_BGR, tf.float32)


def _tf(image: Any) -> Any:
    return image / 127.5 - 1.0


_NORMALIZERS: Mapping[Mode, Callable[[Any], Any]] = {"caffe": _caffe, "tf": _tf}


@dataclass(frozen=True)
class Preprocessing:
    """What is done to an image before the network sees it.

    Args:
        mode: `"caffe"` is RGB → BGR, minus ImageNet's mean; `"tf"` is x / 127.5 - 1.
        size: side of the centre crop, which is the side of the network's input.
        resize: length of the image's shorter side before the crop, at least `size`.

    Raises:
        UserError: an unknown mode, or sides that don't fit each other.

    Example:
        >>> Preprocessing("caffe", size=224, resize=256).for_size(32)
        Preprocessing(mode='caffe', size=32, resize=32)
    """

    mode: Mode
    size: int
    resize: int

    def __post_init__(self) -> None:
        """Refuse what can't be computed."""
        if self.mode not in _NORMALIZERS:
            raise UserError(f"Unknown preprocessing mode. Received: mode={self.mode!r}. Use one of {get_args(Mode)}.")
        if not 1 <= self.size <= self.resize:
            raise UserError(
                "The crop must be at least 1 pixel and fit in the resized image. "
                f"Received: size={self.size}, resize={self.resize}. Give 1 <= size <= resize."
            )

    def prepare(self, image: Any) -> Any:
        """Resize, crop and normalize one image; runs inside `tf.data`.

        The shorter side becomes `resize` (bilinear with antialiasing, aspect kept), then the centre is cut
        out.

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
        image = tf.convert_to_tensor(image)
        height, width = tf.unstack(tf.shape(image)[:2])
        shorter = tf.minimum(height, width)
        # Integer arithmetic, rounding half up: the shorter side is `resize` exactly.
        rows = (height * self.resize + shorter // 2) // shorter
        columns = (width * self.resize + shorter // 2) // shorter
        resized = tf.image.resize(image, (rows, columns), method="bilinear", antialias=True)
        top = (rows - self.size) // 2
        left = (columns - self.size) // 2
        cropped = tf.slice(resized, (top, left, 0), (self.size, self.size, 3))
        return self.normalize(cropped)

    def normalize(self, images: Any) -> Any:
        """Scale pixel values as the network expects them.

        Args:
            images: RGB values from 0 to 255, of shape (..., 3).

        Returns:
            float32 tensor of the same shape.
        """
        return _NORMALIZERS[self.mode](tf.cast(images, tf.float32))

    def for_size(self, size: int) -> "Preprocessing":
        """The same normalization for a square input of `size`, with nothing cropped from a square image."""
        return replace(self, size=size, resize=size)

    def to_dict(self) -> dict[str, str | int]:
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
            return cls(mode=fields["mode"], size=int(fields["size"]), resize=int(fields["resize"]))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"Can't read the preprocessing. Received: {dict(fields)!r}. "
                "Give 'mode', 'size' and 'resize', as Preprocessing.to_dict() writes them."
            ) from error
