"""The images that a pass over a data set left out, because they can't be decoded.

Where the pixels come from: arrays in memory, or files on disk.

From images in some order to the batches that a network reads: the `tf.data` pipeline.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from keras_qat.data.augmentation import Augmentation
from keras_qat.data.decode import decode_file
from keras_qat.data.preprocessing import Preprocessing
from keras_qat.errors import DataError, UserError
from keras_qat.files import is_there


class Skipped:
    """Counts what `ImageSet.batches(…, skipped=counter)` and `arrays` leave out; an image counts once.

    It is filled as the batches are read, and batches are read ahead: ask when the pass has ended.

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
        """Count an image; `reason` names it. Several threads may call it at once."""
        self._reasons.add(reason)

    @property
    def count(self) -> int:
        """How many images were left out."""
        return len(self._reasons)

    @property
    def reasons(self) -> tuple[str, ...]:
        """The message for each image, which names it, sorted."""
        return tuple(sorted(self._reasons))


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


Prepare = Callable[[Any, Any, Any], Any]
"""From an image, its index and the number of the pass to what the network reads."""


def preparation(preprocessing: Preprocessing, augment: Augmentation | None, seed: int | None) -> Prepare:
    """What is done to each image.

    Args:
        preprocessing: of the network.
        augment: vary the image, each by (`seed`, number of the pass, its index).
        seed: of the order and the variation.

    Raises:
        UserError: `augment` is given without a seed.
    """
    if augment is None:
        return lambda image, index, number: preprocessing.prepare(image)  # noqa: ARG005
    if seed is None:
        raise UserError(
            "Only training images are varied, in an order of their own. Received: augment without shuffle_seed. "
            "Give a seed, or leave the augmentation out."
        )
    return lambda image, index, number: augment.prepare(image, preprocessing, (seed, number, index))


def batched(
    order: Any,
    source: ImageSource,
    labels: NDArray[np.int32],
    prepare: Prepare,
    batch_size: int,
    skipped: Skipped | None = None,
) -> Any:
    """Read the images in the given order, several at once, and put them into batches.

    Args:
        order: `tf.data.Dataset` of pairs of int64 scalars: index, number of the pass.
        source: of the images.
        labels: int32 array of shape (n,).
        prepare: what is done to each image.
        batch_size: images in a batch.
        skipped: leave out the images that can't be decoded, and count them there.

    Returns:
        `tf.data.Dataset` of (float32 images (b, size, size, channels), int32 labels (b,)).
    """
    read = source.reader() if skipped is None else source.reader(skipped)
    with tf.device("CPU:0"):
        classes = tf.constant(labels)

    def label(image: Any, index: Any, number: Any) -> tuple[Any, Any]:
        return prepare(image, index, number), tf.gather(classes, index)

    if skipped is None:
        images = order.map(lambda index, number: label(read(index), index, number), num_parallel_calls=tf.data.AUTOTUNE)
    else:
        images = (
            order.map(lambda index, number: (read(index), index, number), num_parallel_calls=tf.data.AUTOTUNE)
            .filter(lambda image, *_: tf.size(image) > 0)
            .map(label, num_parallel_calls=tf.data.AUTOTUNE)
        )
    options = tf.data.Options()
    options.deterministic = True
    return images.batch(batch_size).prefetch(tf.data.AUTOTUNE).with_options(options)
