"""Pixels before they are normalized: the centre of a picture, and gray of colours."""

from typing import Any

import tensorflow as tf

_RED, _BLUE = 0.299, 0.114
"""Weights of the luma of ITU-R BT.601; green has the rest, 0.587."""


def crop_centre(image: Any, size: int, resize: int) -> Any:
    """Make the shorter side `resize` (bilinear with antialiasing, aspect kept), then cut out the centre.

    Args:
        image: uint8 RGB tensor of shape (height, width, 3).
        size: side of the centre.
        resize: length of the shorter side before, at least `size`.

    Returns:
        float32 tensor of shape (size, size, 3), values from 0 to 255.
    """
    image = tf.convert_to_tensor(image)
    height, width = tf.unstack(tf.shape(image)[:2])
    shorter = tf.minimum(height, width)
    # Integer arithmetic, rounding half up: the shorter side is `resize` exactly.
    rows = (height * resize + shorter // 2) // shorter
    columns = (width * resize + shorter // 2) // shorter
    resized = tf.image.resize(image, (rows, columns), method="bilinear", antialias=True)
    top = (rows - size) // 2
    left = (columns - size) // 2
    return tf.slice(resized, (top, left, 0), (size, size, 3))


def to_gray(pixels: Any) -> Any:
    """The luma of ITU-R BT.601, 0.299 R + 0.587 G + 0.114 B, as Pillow's mode "L" and Keras's `load_img` have it.

    It is written so that what is gray keeps its value to the bit; `tf.image.rgb_to_grayscale` makes 255 of it 254.97.

    Args:
        pixels: float32 RGB tensor of shape (..., 3).

    Returns:
        float32 tensor of shape (..., 1).

    Example:
        >>> to_gray(tf.constant([[255.0, 0.0, 0.0], [77.7, 77.7, 77.7]])).numpy().round(3).tolist()
        [[76.245...], [77.69...]]
    """
    red, green, blue = tf.split(pixels, 3, axis=-1)
    return green + _RED * (red - green) + _BLUE * (blue - green)
