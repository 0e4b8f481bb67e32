"""Image files: decoded to RGB arrays, listed in sorted order, and checked for those that are not whole images.

Pillow decodes: it reads CMYK, grayscale and palette images alike, releases the interpreter lock while it works, and
tells which file failed. TensorFlow wraps an exception raised inside `tf.data` in one of its own; `decode_errors`
unwraps it.
"""

import io
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from keras_qat.errors import BrokenImageError, DataError
from keras_qat.progress import track
from keras_qat.text import one_line

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
        reason = "no known image format" if unknown else one_line(error) or type(error).__name__
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


_logger = logging.getLogger(__name__)

_LOOKED_AT = 20_000
"""The most files whose headers are read. Opening a file costs about 0.1 ms: minutes for the whole of ImageNet."""

_AT_ONCE = 1000
"""Files that are given to the threads at a time: a million waiting tasks would fill the memory."""


def visible(folder: Path) -> list[os.DirEntry[str]]:
    """The entries of a folder, sorted by name, without those whose names begin with a dot.

    Raises:
        DataError: If the folder can't be listed.
    """
    try:
        with os.scandir(folder) as entries:
            return sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name)
    except OSError as error:
        raise DataError(
            f"Can't list {folder}: {error.strerror}. Received: {str(folder)!r}. Make the folder readable."
        ) from error


def is_image(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a file with the suffix of an image."""
    suffix = os.path.splitext(entry.name)[1]  # noqa: PTH122 - a Path for each of a million names
    return suffix.lower() in IMAGE_SUFFIXES and entry.is_file()


def list_images(folder: Path, skip_bad: bool = False) -> Sequence[str]:
    """The paths of the images of a class folder, sorted.

    Args:
        folder: the class folder.
        skip_bad: leave out the files without the suffix of an image, and log how many there are.

    Raises:
        BrokenImageError: If the folder holds such a file and `skip_bad` is not set.
        DataError: If the folder holds no image, or holds a folder.
    """
    entries = visible(folder)
    images = [entry.path for entry in entries if is_image(entry)]
    pass_over([entry for entry in entries if not is_image(entry)], folder, skip_bad)
    if not images:
        raise DataError(
            f"The class folder {folder} has no image. Received: {str(folder)!r}. Add images, or remove the folder."
        )
    return images


def pass_over(strays: Sequence[os.DirEntry[str]], folder: Path, skip_bad: bool) -> None:
    """Refuse the entries among images that are no images, or only log them.

    Args:
        strays: the entries that are no images.
        folder: the folder that holds them.
        skip_bad: log files instead of refusing them; folders are refused in any case.

    Raises:
        BrokenImageError: If the first stray entry is a file and `skip_bad` is not set.
        DataError: If there is a folder.
    """
    first = next((entry for entry in strays if not skip_bad or not entry.is_file()), None)
    if first is not None:
        error = BrokenImageError if first.is_file() else DataError
        raise error(
            f"A folder of images holds something that isn't an image. Received: {first.path!r}. Move it away; files "
            f"named {', '.join(sorted(IMAGE_SUFFIXES))} are read."
        )
    if strays:
        _logger.warning(
            "%d file(s) of %s that aren't named as images are left out: %s.", len(strays), folder, strays[0].name
        )


def whole_files(paths: Sequence[str], skip_bad: bool) -> NDArray[np.bool_]:
    """Which files are whole images.

    Args:
        paths: the image files.
        skip_bad: read every file to its end, and log how many can't be decoded. Without it only the first bytes of
            each file are read, and none at all if there are more than 20,000 files.

    Returns:
        bool array of shape (n,); all True without `skip_bad`.

    Raises:
        BrokenImageError: If a file is found to be no image and `skip_bad` is not set.
    """
    whole = np.ones(len(paths), np.bool_)
    if not skip_bad:
        for path in paths if len(paths) <= _LOOKED_AT else ():
            check_header(path)
        return whole
    first = None
    for i, problem in enumerate(track(_problems(paths), "looking at images", total=len(paths))):
        whole[i] = problem is None
        first = first or problem
    if first is not None:
        _logger.warning("%d file(s) that are no image are left out. The first: %s", np.sum(~whole), first)
    return whole


def _problems(paths: Sequence[str]) -> Iterator[str | None]:
    with ThreadPoolExecutor() as pool:
        for begin in range(0, len(paths), _AT_ONCE):
            yield from pool.map(_problem, paths[begin : begin + _AT_ONCE])


def _problem(path: str) -> str | None:
    """Why a file is no whole image; `None` if it is one."""
    try:
        check_whole(path)
    except BrokenImageError as error:
        return str(error)
    return None
