"""Where the pixels come from: arrays in memory, or files on disk."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from keras_qat.data.decode import decode_file


class ImageSource(Protocol):
    """What an `ImageSet` asks of its images; anything with these methods will do."""

    def __len__(self) -> int:
        """How many images there are."""

    def select(self, indices: NDArray[np.int64]) -> "ImageSource":
        """The images at `indices`, in that order."""

    def reader(self) -> Callable[[Any], Any]:
        """A function from a scalar int64 index to a uint8 RGB tensor (height, width, 3), for `tf.data`."""


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

    def reader(self) -> Callable[[Any], Any]:
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

    def reader(self) -> Callable[[Any], Any]:
        """A function from an index to the decoded file."""
        paths = tf.constant([os.fsencode(path) for path in self.paths], tf.string)

        def read(index: Any) -> Any:
            image = tf.numpy_function(decode_file, [tf.gather(paths, index)], tf.uint8, stateful=False)
            image.set_shape((None, None, 3))
            return image

        return read
