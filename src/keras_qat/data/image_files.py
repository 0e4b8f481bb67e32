"""Image files: decoded to RGB arrays, listed in sorted order, and checked for those that are not whole images.

Pillow decodes: it reads CMYK, grayscale and palette images alike, releases the interpreter lock while it works, and
tells which file failed. TensorFlow wraps an exception raised inside `tf.data` in one of its own; `decode_errors`
unwraps it.
"""

import errno
import functools
import io
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError, features

from keras_qat.data.rgb import UnreadPixelsError, require_rgb, to_rgb
from keras_qat.errors import BrokenImageError, DataError, StorageError, UserError
from keras_qat.files import open_file
from keras_qat.progress import track
from keras_qat.text import one_line, path_text, shortened, size_text

IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "AVIF")
"""The formats that are decoded, told by a file's content, whatever its name. Pillow knows some thirty more, among them
EPS and WMF, for which it starts a program or draws what the file says. A PPM may be a PGM or a PBM."""

_OPTIONAL = frozenset({"WEBP", "AVIF"})
"""The formats that Pillow may have been built without; it has a module of the format's name if it knows the format."""

MOST_PIXELS = 2 * 89_478_485
"""The most pixels of an image, as many as Pillow takes by itself; they are 0.5 GB in memory."""

MOST_PIXELS_VARIABLE = "KERAS_QAT_MAX_IMAGE_PIXELS"
"""The environment variable with another number of pixels."""

_MOST_DIGITS = 18

_BYTES_PER_PIXEL = 16
"""The largest file has so many bytes for each pixel of the largest image, since some decoders read the whole file."""

_OF_THE_MACHINE = frozenset(
    {
        errno.EIO,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENODEV,
        errno.ENOMEM,
        errno.ENOTCONN,
        errno.ESTALE,
        errno.ETIMEDOUT,
    }
)
"""The numbers of errors that say nothing of a file: of a disk or network that fails, or of too many open files."""

_ADVICE = "Replace the file with a whole image, or remove it."

# TensorFlow puts the Python exception's class, message and traceback into its own message.
_UNWRAPPED: Mapping[str, type[Exception]] = {
    kind.__name__: kind for kind in (DataError, BrokenImageError, StorageError, MemoryError)
}
_WRAPPED = re.compile(rf"(?P<kind>{'|'.join(_UNWRAPPED)}): (?P<message>.+)")


def decode_file(path: str | bytes | Path, advice: str = _ADVICE) -> NDArray[np.uint8]:
    """Read one image file.

    Args:
        path: a file of a format in `FORMATS`; of an animation the first frame is taken.
        advice: how an error message ends.

    Returns:
        uint8 RGB array of shape (height, width, 3). Transparency is dropped and the EXIF orientation is not applied,
        both as in `keras.utils.load_img`. Gray of 16 bits is scaled to 8; of colours with 16 bits, Pillow reads the
        upper 8.

    Raises:
        BrokenImageError: If the file is missing, truncated, too large, or no image; if its pixels are no colours of at
            most 16 bits; or if it is a TIFF of several pages.
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
    with opened(str(path), str(path), header_only=True):
        pass


def check_whole(path: str | Path) -> None:
    """Read an image file to its end; a JPEG file at an eighth of its size, which is quicker.

    Raises:
        BrokenImageError: If the file is no image, or only a part of one.
    """
    with opened(str(path), str(path)) as image:
        image.draft(None, (1, 1))
        image.load()


def _require_checksums(content: BinaryIO) -> None:
    """Compare the checksums of a PNG, which Pillow does not do when it decodes one.

    Raises:
        OSError: If the file is only a part of one.
        SyntaxError: If a checksum is wrong.
    """
    content.seek(0)
    is_png = content.read(len(_PNG)) == _PNG
    content.seek(0)
    if is_png:
        try:
            Image.open(content, formats=("PNG",)).verify()
        except OSError as error:
            # As Pillow says it of the other formats.
            raise OSError("image file is truncated") from error
        content.seek(0)


_PNG = b"\x89PNG\r\n\x1a\n"
"""The first bytes of a PNG."""


@contextmanager
def opened(
    file: str | io.BytesIO, name: str, advice: str = _ADVICE, *, header_only: bool = False
) -> Iterator[Image.Image]:
    """Open an image with Pillow, which reads the header, and the pixels where the block needs them.

    Args:
        file: a path, or the content of an image file.
        name: what an error message calls the image.
        advice: how an error message ends.
        header_only: whether the block needs no pixels, so that no checksum is compared.

    Raises:
        BrokenImageError: If the content is no image of a format in `FORMATS`, has more than `most_pixels()` pixels, or
            is broken where the block reads it.
        StorageError: If the disk, the network or a limit of the system is why it can't be read, and not the file. The
            callers that leave out broken images let it through, since a good one would be left out.
        MemoryError: If there is too little memory to decode it.
        UserError: If the limit of pixels is none.
    """
    most = most_pixels()
    try:
        with ExitStack() as stack:
            content = stack.enter_context(open_file(file)) if isinstance(file, str) else file
            size = content.seek(0, os.SEEK_END)
            if size > _BYTES_PER_PIXEL * most:
                raise Image.DecompressionBombError(f"its file has {size_text(size)}")  # noqa: TRY301
            if not header_only:
                _require_checksums(content)
            image = stack.enter_context(Image.open(content, formats=_supported_formats()))
            width, height = image.size
            if width * height > most:
                raise Image.DecompressionBombError(f"it has {width} x {height} pixels")  # noqa: TRY301
            require_rgb(image)
            yield image
    except UserError:
        raise
    except MemoryError as error:
        raise MemoryError(f"too little memory to decode the image {path_text(name)}") from error
    except Exception as error:
        # One line: `decode_errors` finds each message by its line in TensorFlow's.
        if isinstance(error, OSError) and error.errno in _OF_THE_MACHINE:
            raise StorageError(
                f"Can't read the image {path_text(name)}: {error.strerror}. Received: {name!r}. Check the disk or the "
                "network folder, and how many files may be open (`ulimit -n`), and start again."
            ) from error
        # Pillow's decoders raise errors of many classes on broken files, among them RuntimeError, struct.error and
        # SyntaxError.
        reason = next((say(error) for kind, say in _REASONS if isinstance(error, kind)), None)
        raise BrokenImageError(
            f"Can't read the image {path_text(name)}: {reason or shortened(error)}. Received: {name!r}. {advice}"
        ) from error


_REASONS: tuple[tuple[type[Exception], Callable[[Any], str | None]], ...] = (
    (UnidentifiedImageError, lambda _: f"no known image format ({', '.join(FORMATS)})"),
    (
        Image.DecompressionBombError,
        lambda error: (
            f"it is too large, {one_line(error)}; the environment variable {MOST_PIXELS_VARIABLE} sets the most pixels "
            f"of an image, now {most_pixels()}"
        ),
    ),
    (UnreadPixelsError, str),
    (OSError, lambda error: error.strerror),
)
"""(class of an error, what it says of the image, or `None` if its own message does); the first match applies."""


@functools.cache
def _supported_formats() -> tuple[str, ...]:
    """Those of `FORMATS` that this Pillow was built with."""
    return tuple(
        name
        for name in FORMATS
        if name not in _OPTIONAL or (name.lower() in features.modules and features.check_module(name.lower()))
    )


def most_pixels() -> int:
    """The most pixels that an image may have: `MOST_PIXELS`, or the number in the environment variable.

    Raises:
        UserError: If the variable isn't a whole number of at least 1.
    """
    text = os.environ.get(MOST_PIXELS_VARIABLE)
    if text is None:
        return MOST_PIXELS
    if not (text.isascii() and text.isdecimal() and int(text[:_MOST_DIGITS]) > 0 and len(text) <= _MOST_DIGITS):
        raise UserError(
            f"The environment variable {MOST_PIXELS_VARIABLE} is the most pixels of an image. Received: {text!r}. Give "
            f"a whole number, such as {2 * MOST_PIXELS}, or unset it."
        )
    # Pillow refuses images of more than twice this number by itself, and warns above it.
    Image.MAX_IMAGE_PIXELS = max(int(text), MOST_PIXELS // 2)
    return int(text)


@contextmanager
def decode_errors() -> Iterator[None]:
    """Turn TensorFlow's error for an unreadable image back into the error that names the file.

    Put it around whatever consumes `ImageSet.batches`: `model.fit`, `model.predict`, a loop.

    Raises:
        BrokenImageError: If an image can't be read.
        DataError: If the file that holds the image can't be read.
        StorageError: If the disk, the network or a limit of the system is why.
        MemoryError: If there is too little memory to decode it.

    Example:
        >>> import tensorflow as tf
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
    except Exception as error:
        # Where TensorFlow has not been imported, no error is one of its own.
        tensorflow = sys.modules.get("tensorflow")
        is_tensorflows = tensorflow is not None and isinstance(error, tensorflow.errors.OpError)
        wrapped = _WRAPPED.search(str(error)) if is_tensorflows else None
        if wrapped is None:
            raise
        raise _UNWRAPPED[wrapped["kind"]](wrapped["message"]) from error


_logger = logging.getLogger(__name__)

_LOOKED_AT = 20_000
"""The most files whose headers are read. Opening a file costs about 0.1 ms: minutes for the whole of ImageNet."""

_AT_ONCE = 1000
"""Files that are given to the threads at a time: a million waiting tasks would fill the memory."""


class Entry(NamedTuple):
    """What stands in a folder under one name; links are followed.

    Args:
        name: its name.
        path: the folder's path and its name.
        is_file: whether it is a regular file.
        is_folder: whether it is a folder. FIFOs, sockets, devices and links that lead nowhere are neither.
    """

    name: str
    path: str
    is_file: bool
    is_folder: bool


def visible(folder: Path) -> list[Entry]:
    """The entries of a folder, sorted by name, without those whose names begin with a dot.

    Raises:
        DataError: If the folder can't be listed.
    """
    try:
        with os.scandir(folder) as entries:
            return sorted((_entry(e) for e in entries if not e.name.startswith(".")), key=lambda e: e.name)
    except (OSError, ValueError) as error:
        raise DataError(
            f"Can't list {path_text(folder)}: {getattr(error, 'strerror', None) or error}. Received: {str(folder)!r}. "
            "Make the folder readable."
        ) from error


def _entry(entry: os.DirEntry[str]) -> Entry:
    try:
        return Entry(entry.name, entry.path, entry.is_file(), entry.is_dir())
    except OSError:
        # Its link leads to itself, or to where this user may not look.
        return Entry(entry.name, entry.path, is_file=False, is_folder=False)


def is_image(entry: Entry) -> bool:
    """Whether an entry is a file with the suffix of an image."""
    suffix = os.path.splitext(entry.name)[1]  # noqa: PTH122 - a Path for each of a million names
    return suffix.lower() in IMAGE_SUFFIXES and entry.is_file


def is_array_file(entry: Entry) -> bool:
    """Whether an entry is a file of an array, which isn't decoded but read."""
    return entry.is_file and os.path.splitext(entry.name)[1].lower() in {".npy", ".npz"}  # noqa: PTH122 - as above


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
            f"The class folder {path_text(folder)} has no image. Received: {str(folder)!r}. Add images, or remove the "
            "folder."
        )
    return images


def pass_over(strays: Sequence[Entry], folder: Path, skip_bad: bool) -> None:
    """Refuse the entries among images that are no images, or only log them.

    Args:
        strays: the entries that are no images.
        folder: the folder that holds them.
        skip_bad: log what is no folder instead of refusing it; folders are refused in any case.

    Raises:
        BrokenImageError: If the first stray entry is no folder and `skip_bad` is not set.
        DataError: If there is a folder.
    """
    first = next((entry for entry in strays if not skip_bad or entry.is_folder), None)
    if first is not None:
        error = DataError if first.is_folder else BrokenImageError
        what = (
            "something that isn't an image"
            if first.is_file or first.is_folder
            else "a FIFO, a socket, a device or a link that leads nowhere, and only files are read"
        )
        raise error(
            f"A folder of images holds {what}. Received: {first.path!r}. Move it away; files "
            f"named {', '.join(sorted(IMAGE_SUFFIXES))} are read."
        )
    if strays:
        _logger.warning(
            "%d file(s) of %s that aren't images are left out: %s.",
            len(strays),
            path_text(folder),
            path_text(strays[0].name),
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
