"""Images of any format to RGB arrays, and errors that name the file.

Pillow decodes: it reads CMYK, grayscale and palette images alike, releases the interpreter lock while it
works, and tells which file failed. TensorFlow wraps an exception raised inside `tf.data` in one of its own;
`decode_errors` unwraps it.
"""

import io
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from keras_qat.errors import BrokenImageError, DataError

IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp"})

# Pillow raises OSError for unreadable and truncated files and for those that are no image, SyntaxError and ValueError
# for broken chunks, DecompressionBombError for absurdly large images, and the rest for malformed headers.
_PILLOW_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    Image.DecompressionBombError,
)
_ADVICE = "Replace the file with a whole image, or remove it."

# TensorFlow puts the Python exception's class, message and traceback into its own message.
_UNWRAPPED: Mapping[str, type[DataError]] = {kind.__name__: kind for kind in (DataError, BrokenImageError)}
_WRAPPED = re.compile(rf"(?P<kind>{'|'.join(_UNWRAPPED)}): (?P<message>.+)")


def decode_file(path: str | bytes | Path, advice: str = _ADVICE) -> NDArray[np.uint8]:
    """Read one image file.

    Args:
        path: a file of any format that Pillow reads; of an animation the first frame is taken.
        advice: how an error message ends.

    Returns:
        uint8 RGB array of shape (height, width, 3). Transparency is dropped and the EXIF orientation is not applied,
        both as in `keras.utils.load_img`.

    Raises:
        BrokenImageError: If the file is missing, truncated, or no image.
    """
    name = os.fsdecode(path)
    with opened(name, name, advice) as image:
        return np.asarray(to_rgb(image), np.uint8)


def decode_bytes(data: bytes, name: str, advice: str = _ADVICE) -> NDArray[np.uint8]:
    """Read one image from memory, as `decode_file` does.

    Args:
        data: the content of an image file.
        name: what an error message calls the image.
        advice: how an error message ends.

    Raises:
        BrokenImageError: If the bytes are no image, or only a part of one.
    """
    with opened(io.BytesIO(data), name, advice) as image:
        return np.asarray(to_rgb(image), np.uint8)


def check_header(path: str | Path) -> None:
    """Read only the header of an image file, which is cheap and tells an image from a text file.

    Raises:
        BrokenImageError: If the content is no image, whatever the file is called.
    """
    with opened(str(path), str(path)):
        pass


def check_whole(path: str | Path) -> None:
    """Read an image file to its end; a JPEG file at an eighth of its size, which is quicker.

    Raises:
        BrokenImageError: If the file is no image, or only a part of one.
    """
    with opened(str(path), str(path)) as image:
        image.draft(None, (1, 1))
        image.load()


@contextmanager
def opened(file: str | io.BytesIO, name: str, advice: str = _ADVICE) -> Iterator[Image.Image]:
    """Open an image with Pillow, which reads the header only.

    Args:
        file: a path, or the content of an image file.
        name: what an error message calls the image.
        advice: how an error message ends.

    Raises:
        BrokenImageError: If the content is no image, or is broken where the block reads it.
    """
    try:
        with Image.open(file) as image:
            yield image
    except _PILLOW_ERRORS as error:
        # One line: `decode_errors` finds the message by its line in TensorFlow's.
        unknown = isinstance(error, UnidentifiedImageError)
        reason = "no known image format" if unknown else " ".join(str(error).split()) or type(error).__name__
        raise BrokenImageError(f"Can't read the image {name}: {reason}. Received: {name!r}. {advice}") from error


@contextmanager
def decode_errors() -> Iterator[None]:
    """Turn TensorFlow's error for an unreadable image back into the error that names the file.

    Put it around whatever consumes `ImageSet.batches`: `model.fit`, `model.predict`, a loop.

    Raises:
        BrokenImageError: If an image can't be read.
        DataError: If the file that holds the image can't be read.

    Example:
        >>> dataset = tf.data.Dataset.from_tensors("gone.png").map(
        ...     lambda path: tf.numpy_function(decode_file, [path], tf.uint8)
        ... )
        >>> with decode_errors():
        ...     list(dataset)
        Traceback (most recent call last):
        ...
        keras_qat.errors.BrokenImageError: Can't read the image gone.png: ...
    """
    try:
        yield
    except tf.errors.OpError as error:
        wrapped = _WRAPPED.search(str(error))
        if wrapped is None:
            raise
        raise _UNWRAPPED[wrapped["kind"]](wrapped["message"]) from error


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image to RGB; 16-bit gray is cut to 8 bits, transparency is dropped."""
    if image.mode.startswith("I"):
        # Pillow would clip 16-bit gray to white.
        gray = np.asarray(image, np.int32) >> 8
        return Image.fromarray(np.clip(gray, 0, 255).astype(np.uint8)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")
