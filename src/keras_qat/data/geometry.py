"""Where an image comes to lie in the input of a network: resized, then cut out or padded.

An image and its class map (mask) share one geometry. Only how they are resized differs: the pixels of an image are
interpolated, the classes of a mask are taken from the nearest position.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import tensorflow as tf

Fit = Literal["crop", "squash", "letterbox"]
"""How an image of any shape becomes an input of one shape: its centre is cut out; or it is resized to the input,
whatever its aspect ratio; or it is resized to fit inside, its aspect ratio kept, and the rest is padded."""

Interpolation = Literal["bilinear", "nearest", "bicubic", "lanczos3", "lanczos5"]
"""The methods of resizing that Keras and TensorFlow share."""


class Geometry(NamedTuple):
    """Where the network's input lies in a resized image: its pixel (i, j) is pixel (top + i, left + j) of that image.

    Args:
        rows: the height to which the image is resized.
        columns: the width to which the image is resized.
        top: the row of the resized image that is the input's first one; -n if there are n rows of padding above.
        left: the column of the resized image that is the input's first one; -n if n columns of padding come before it.
    """

    rows: Any
    columns: Any
    top: Any
    left: Any


def locate(fit: Fit, height: Any, width: Any, frame: tuple[int, int], size: tuple[int, int]) -> Geometry:
    """Find where the input of a network lies in an image.

    Args:
        fit: how the image becomes the input.
        height: the height of the image in pixels, an integer or an integer tensor.
        width: the width of the image in pixels, likewise.
        frame: height and width in pixels of what the image is resized to: it covers the frame (`"crop"`), fills it
            exactly (`"squash"`) or fits inside (`"letterbox"`).
        size: height and width of the input, which is the centre of the frame.

    Returns:
        The geometry, as int32 scalars.

    Example:
        >>> [int(number) for number in locate("letterbox", 50, 100, (96, 96), (96, 96))]
        [48, 96, -24, 0]
    """
    # In int64, since the product of two sides may pass the range of int32.
    rows, columns = _RESIZED[fit](*(tf.cast(side, tf.int64) for side in (height, width, *frame)))
    # Towards zero: of an odd number of rows, the larger half is below, whether it is cut off or padded.
    top, left = tf.truncatediv(rows - size[0], 2), tf.truncatediv(columns - size[1], 2)
    return Geometry(*(tf.cast(number, tf.int32) for number in (rows, columns, top, left)))


def _covering(height: Any, width: Any, rows: Any, columns: Any) -> tuple[Any, Any]:
    """The smallest size that covers the frame, with the aspect ratio of the image."""
    by_rows = rows * width >= columns * height
    return tf.where(by_rows, rows, _scaled(height, columns, width)), tf.where(
        by_rows, _scaled(width, rows, height), columns
    )


def _inside(height: Any, width: Any, rows: Any, columns: Any) -> tuple[Any, Any]:
    """The largest size that fits into the frame, with the aspect ratio of the image; at least one pixel."""
    by_rows = rows * width <= columns * height
    return tf.where(by_rows, rows, tf.maximum(_scaled(height, columns, width), 1)), tf.where(
        by_rows, tf.maximum(_scaled(width, rows, height), 1), columns
    )


def _exactly(_height: Any, _width: Any, rows: Any, columns: Any) -> tuple[Any, Any]:
    return rows, columns


def _scaled(side: Any, to: Any, other: Any) -> Any:
    """`side · to / other` in integers, rounding half up."""
    return (side * to + other // 2) // other


_RESIZED: Mapping[Fit, Callable[[Any, Any, Any, Any], tuple[Any, Any]]] = {
    "crop": _covering,
    "squash": _exactly,
    "letterbox": _inside,
}
"""From height and width of an image, and those of the frame, to height and width of the resized image."""


def cut(resized: Any, geometry: Geometry, size: tuple[int, int], padding: float) -> Any:
    """Cut the input of a network out of a resized image, and pad it where the image ends.

    Args:
        resized: tensor of shape (rows, columns, channels).
        geometry: where the input lies in it.
        size: height and width of the input.
        padding: the value of what is not part of the image.

    Returns:
        Tensor of shape (height, width, channels) and of the same dtype.

    Example:
        >>> ones = tf.ones((1, 4, 1), tf.int32)
        >>> cut(ones, Geometry(1, 4, -1, 1), (3, 2), padding=-1)[..., 0].numpy().tolist()
        [[-1, -1], [1, 1], [-1, -1]]
    """
    (top, bottom), (left, right) = (
        (first, tf.minimum(first + length, there))
        for first, length, there in zip(
            (geometry.top, geometry.left), size, (geometry.rows, geometry.columns), strict=True
        )
    )
    inside = resized[tf.maximum(top, 0) : bottom, tf.maximum(left, 0) : right]
    before = (tf.maximum(-top, 0), tf.maximum(-left, 0))
    after = (geometry.top + size[0] - bottom, geometry.left + size[1] - right)
    padded = tf.pad(inside, [*zip(before, after, strict=True), (0, 0)], constant_values=padding)
    return tf.ensure_shape(padded, (*size, resized.shape[-1]))
