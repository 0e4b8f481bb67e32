"""Where the pixels of a data set come from: arrays in memory, or files on disk that are decoded as they are read."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from keras_qat.data.fingerprint import digest, digest_files
from keras_qat.data.image_files import decode_file
from keras_qat.errors import DataError

_NO_IMAGE = np.zeros((0, 0, 3), np.uint8)
"""Stands for an image that can't be decoded."""


class Skipped:
    """Counts the images that `ImageSet.batches(…, skipped=counter)` and `arrays` leave out; each image counts once.

    It is filled as batches are read, and batches are read ahead: read the count when the pass has ended.

    Example:
        >>> skipped = Skipped()
        >>> for _ in range(2):
        ...     skipped.add("Can't read the image a.png: truncated.")
        >>> skipped.count
        1
    """

    def __init__(self) -> None:
        self._reasons: set[str] = set()

    def add(self, reason: str) -> None:
        """Count an image, which `reason` names. Several threads may call it at once."""
        self._reasons.add(reason)

    @property
    def count(self) -> int:
        """The number of images that were left out."""
        return len(self._reasons)

    @property
    def reasons(self) -> tuple[str, ...]:
        """The message for each image, which names it, sorted."""
        return tuple(sorted(self._reasons))


class ImageSource(Protocol):
    """The pixels of an `ImageSet`; any object with these methods will do."""

    def __len__(self) -> int:
        """The number of images."""

    def select(self, indices: NDArray[np.int64]) -> "ImageSource":
        """The images at `indices`, in that order."""

    def fingerprint(self) -> str:
        """A digest of these images in this order; it stays the same if the data set is moved as a whole."""

    def reader(self, skipped: Skipped | None = None) -> Callable[[Any], Any]:
        """A function from a scalar int64 index to a uint8 RGB tensor (height, width, 3), for `tf.data`.

        With `skipped`, an image that can't be decoded is counted there and returned as an image without pixels.
        """


@dataclass(frozen=True, eq=False)
class ArraySource:
    """Images in memory.

    Args:
        images: uint8 RGB array of shape (n, height, width, 3).
    """

    images: NDArray[np.uint8]

    def __len__(self) -> int:
        """The number of images."""
        return len(self.images)

    def select(self, indices: NDArray[np.int64]) -> "ArraySource":
        """The images at `indices`, in that order."""
        return ArraySource(self.images[indices])

    def fingerprint(self) -> str:
        """A digest of the pixels."""
        return digest(str(self.images.shape).encode(), np.ascontiguousarray(self.images).tobytes())

    def reader(self, skipped: Skipped | None = None) -> Callable[[Any], Any]:  # noqa: ARG002 - all are decoded
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
        """The number of images."""
        return len(self.paths)

    def select(self, indices: NDArray[np.int64]) -> "FileSource":
        """The files at `indices`, in that order."""
        return FileSource(tuple(self.paths[i] for i in indices))

    def fingerprint(self) -> str:
        """A digest of each file's name, size and content."""
        return digest_files(self.paths)

    def reader(self, skipped: Skipped | None = None) -> Callable[[Any], Any]:
        """A function from an index to the decoded file."""
        return decoding_reader(lambda index: decode_file(self.paths[index]), skipped)


def decoding_reader(decode: Callable[[int], NDArray[np.uint8]], skipped: Skipped | None) -> Callable[[Any], Any]:
    """The `reader` of a source whose images are decoded in Python, by several threads at once.

    Args:
        decode: from the index of an image to its pixels; raises a `DataError` that names the image.
        skipped: as in `ImageSource.reader`.
    """

    def decode_or_skip(index: Any) -> NDArray[np.uint8]:
        try:
            return decode(int(index))
        except DataError as error:
            if skipped is None:
                raise
            skipped.add(str(error))
            return _NO_IMAGE

    def read(index: Any) -> Any:
        image = tf.numpy_function(decode_or_skip, [index], tf.uint8, stateful=False)
        image.set_shape((None, None, 3))
        return image

    return read
