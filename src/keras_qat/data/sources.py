"""Where the pixels come from: arrays in memory, or files on disk."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from keras_qat.data.decode import decode_file
from keras_qat.data.skipped import Skipped
from keras_qat.errors import DataError
from keras_qat.file_system import is_there

_NO_IMAGE = np.zeros((0, 0, 3), np.uint8)


class ImageSource(Protocol):
    """What an `ImageSet` asks of its images; anything with these methods will do."""

    def __len__(self) -> int:
        """How many images there are."""

    def select(self, indices: NDArray[np.int64]) -> "ImageSource":
        """The images at `indices`, in that order."""

    def fingerprint(self) -> str:
        """What tells these images, in this order, from others; the same where the data set was moved as a whole."""

    def reader(self, skipped: Skipped | None = None) -> Callable[[Any], Any]:
        """A function from a scalar int64 index to a uint8 RGB tensor (height, width, 3), for `tf.data`.

        With `skipped`, an image that can't be decoded is counted there and comes as one of no pixels.
        """


@dataclass(frozen=True, eq=False)
class ArraySource:
    """Images in memory.

    Args:
        images: uint8 RGB array of shape (n, height, width, 3).
    """

    images: NDArray[np.uint8]

    def __len__(self) -> int:
        """How many images there are."""
        return len(self.images)

    def select(self, indices: NDArray[np.int64]) -> "ArraySource":
        """The images at `indices`, in that order."""
        return ArraySource(self.images[indices])

    def fingerprint(self) -> str:
        """A digest of the pixels."""
        return digest(str(self.images.shape).encode(), np.ascontiguousarray(self.images).tobytes())

    def reader(self, skipped: Skipped | None = None) -> Callable[[Any], Any]:  # noqa: ARG002 - these are decoded
        """A function from an index to the image."""
        with tf.device("CPU:0"):
            images = tf.constant(self.images)
        return lambda index: tf.gather(images, index)


@dataclass(frozen=True, eq=False)
class FileSource:
    """Images in files, decoded when they are read.

    Args:
        paths: one file for each image.
    """

    paths: tuple[str, ...]

    def __len__(self) -> int:
        """How many images there are."""
        return len(self.paths)

    def select(self, indices: NDArray[np.int64]) -> "FileSource":
        """The files at `indices`, in that order."""
        return FileSource(tuple(self.paths[i] for i in indices))

    def fingerprint(self) -> str:
        """A digest of each file's name and size, which is quick: no file is read."""
        files = map(Path, self.paths)
        sizes = ((file.name, file.stat().st_size if is_there(file, DataError) else None) for file in files)
        return digest(*(f"{name} {size}\n".encode() for name, size in sizes))

    def reader(self, skipped: Skipped | None = None) -> Callable[[Any], Any]:
        """A function from an index to the decoded file."""
        return decoding_reader(lambda index: decode_file(self.paths[index]), skipped)


def digest(*parts: bytes) -> str:
    """A SHA-256 of all parts together: 64 hexadecimal digits."""
    found = hashlib.sha256()
    for part in parts:
        found.update(part)
    return found.hexdigest()


def decoding_reader(decode: Callable[[int], NDArray[np.uint8]], skipped: Skipped | None) -> Callable[[Any], Any]:
    """The `reader` of a source whose images are decoded in Python, by several threads at once.

    Args:
        decode: from the index of an image to its pixels; raises a `DataError` that names the image.
        skipped: see `ImageSource.reader`.
    """

    def decode_one(index: Any) -> NDArray[np.uint8]:
        try:
            return decode(int(index))
        except DataError as error:
            if skipped is None:
                raise
            skipped.add(str(error))
            return _NO_IMAGE

    def read(index: Any) -> Any:
        image = tf.numpy_function(decode_one, [index], tf.uint8, stateful=False)
        image.set_shape((None, None, 3))
        return image

    return read
