"""A random order in which every prefix holds the classes in proportion.

Within a class the images are shuffled and the k-th of m gets the key (k + u) / m, with u uniform in [0, 1).
Sorted by that key, the first n images hold each class n · m / N times, give or take one; with one image per
class it is a plain shuffle.

The order of the images in each pass over a data set.

Images with or without labels, and the batches a network reads.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from keras_qat.data.augmentation import Augmentation
from keras_qat.data.decode import decode_errors
from keras_qat.data.preprocessing import Preprocessing
from keras_qat.data.sources import ArraySource, FileSource, ImageSource, Skipped, batched, digest, preparation
from keras_qat.errors import DataError, UserError
from keras_qat.types import UNLABELLED


def stratified_order(labels: NDArray[np.int32], seed: int) -> NDArray[np.int64]:
    """A seeded permutation of the indices of `labels`, each prefix of it as stratified as it can be.

    Args:
        labels: int32 array of shape (n,).
        seed: the same seed gives the same order, on every machine.

    Returns:
        int64 array of shape (n,): a permutation of 0 … n - 1.

    Example:
        >>> labels = np.array([0] * 90 + [1] * 10, np.int32)
        >>> np.bincount(labels[stratified_order(labels, seed=1)[:20]])
        array([18,  2])
    """
    random = np.random.default_rng(seed)
    shuffled = random.permutation(len(labels)).astype(np.int64)
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    _, start, count = np.unique(labels[by_class], return_index=True, return_counts=True)
    rank = np.arange(len(labels)) - np.repeat(start, count)
    key = (rank + random.random(len(labels))) / np.repeat(count, count)
    return by_class[np.argsort(key, kind="stable")]


def stratified_cut(
    labels: NDArray[np.int32], share: float, most: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Cut a share of the indices of `labels` off, at least 1 and at most `most`, as stratified as it can be.

    Args:
        labels: int32 array of shape (n,).
        share: of them to cut off, 0 to 1.
        most: the most of them.
        seed: as for `stratified_order`.

    Returns:
        What stays and what is cut off, both int64 and sorted.

    Example:
        >>> stays, off = stratified_cut(np.array([0, 1] * 10, np.int32), 0.1, 5000, seed=0)
        >>> len(stays), len(off)
        (18, 2)
    """
    order = stratified_order(labels, seed)
    count = min(max(1, round(share * len(labels))), most)
    return np.sort(order[count:]), np.sort(order[:count])


def passes(count: int, seed: int | None, first_pass: int = 0) -> Any:
    """A dataset of indices, in another order each time it is iterated if there is a seed.

    The k-th pass is the permutation that NumPy draws from (`seed`, k): TensorFlow's global seed has no say,
    and a training that goes on at pass k sees what an uninterrupted one would have.

    Args:
        count: how many images there are.
        seed: `None` for 0, 1, 2 … in every pass.
        first_pass: number of the first pass.

    Returns:
        `tf.data.Dataset` of `count` pairs of int64 scalars: index, number of the pass. Without a seed all passes
        are equal and have the number of the first.

    Example:
        >>> def order(dataset):
        ...     return [(int(index), int(number)) for index, number in dataset.as_numpy_iterator()]
        >>> shuffled = passes(4, seed=1)
        >>> first, second = (order(shuffled) for _ in range(2))
        >>> sorted(first), second == order(passes(4, seed=1, first_pass=1))
        ([(0, 0), (1, 0), (2, 0), (3, 0)], True)
    """
    if seed is None:
        return tf.data.Dataset.range(count).map(lambda index: (index, tf.constant(first_pass, tf.int64)))
    numbers = itertools.count(first_pass)

    def draw() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        number = next(numbers)
        return np.random.default_rng((seed, number)).permutation(count), np.full(count, number, np.int64)

    def shuffled(_: Any) -> Any:
        indices, number = tf.numpy_function(draw, [], (tf.int64, tf.int64))
        indices.set_shape((count,))
        number.set_shape((count,))
        return tf.data.Dataset.from_tensor_slices((indices, number))

    one_pass = tf.data.Dataset.range(1).flat_map(shuffled)
    return one_pass.apply(tf.data.experimental.assert_cardinality(count))


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images, mostly labelled, with the preprocessing of one network.

    Args:
        name: what a report calls it, such as `"digits/validation"`.
        labels: int32 array of shape (n,): the index of each image's class; all -1 where nobody knows them.
        source: where the pixels come from.
        preprocessing: what is done to each image.

    Raises:
        DataError: not one label per image, or labels that aren't int32.

    Example:
        >>> images = np.zeros((5, 8, 8, 3), "uint8")
        >>> data = ImageSet.from_arrays("black", images, [0, 1, 0, 1, 0], Preprocessing("tf", 8, 8))
        >>> [x.shape for x, y in data.arrays(2)]
        [(2, 8, 8, 3), (2, 8, 8, 3), (1, 8, 8, 3)]
    """

    name: str
    labels: NDArray[np.int32]
    source: ImageSource
    preprocessing: Preprocessing

    def __post_init__(self) -> None:
        """Refuse labels that don't belong to the images."""
        if self.labels.dtype != np.int32 or self.labels.shape != (len(self.source),):
            raise DataError(
                f"{self.name} needs one int32 label for each of its {len(self.source)} images. "
                f"Received: labels of shape {self.labels.shape} and type {self.labels.dtype}. "
                "Give an int32 array, one label an image."
            )

    @classmethod
    def from_arrays(
        cls,
        name: str,
        images: NDArray[np.uint8],
        labels: Sequence[int] | NDArray[Any],
        preprocessing: Preprocessing,
    ) -> "ImageSet":
        """Make a set from images in memory.

        Args:
            name: what a report calls it.
            images: uint8 RGB array of shape (n, height, width, 3).
            labels: n integers.
            preprocessing: what is done to each image.

        Raises:
            DataError: `images` isn't uint8 RGB, or the labels don't fit.
        """
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:  # noqa: PLR2004
            raise DataError(
                f"{name} needs uint8 RGB images of shape (n, height, width, 3). "
                f"Received: shape {images.shape}, type {images.dtype}. "
                "Give values from 0 to 255, three channels last."
            )
        return cls(name, np.asarray(labels, np.int32), ArraySource(images), preprocessing)

    @classmethod
    def from_files(
        cls,
        name: str,
        paths: Sequence[str | Path],
        labels: Sequence[int] | NDArray[Any],
        preprocessing: Preprocessing,
    ) -> "ImageSet":
        """Make a set from image files, decoded each time they are read.

        Raises:
            DataError: the labels don't fit. An unreadable file is found when it is read.
        """
        source = FileSource(tuple(str(path) for path in paths))
        return cls(name, np.asarray(labels, np.int32), source, preprocessing)

    def __len__(self) -> int:
        """How many images there are."""
        return len(self.labels)

    @property
    def labelled(self) -> bool:
        """Whether the classes of the images are known; where they aren't, every label is -1."""
        return not len(self) or bool(np.any(self.labels != UNLABELLED))

    def steps(self, batch_size: int) -> int:
        """How many batches one pass has; the last may be smaller.

        Raises:
            UserError: `batch_size` is under 1.
        """
        if batch_size < 1:
            raise UserError(f"A batch needs at least 1 image. Received: batch_size={batch_size}. Give 1 or more.")
        return -(-len(self) // batch_size)

    def batches(
        self,
        batch_size: int,
        *,
        shuffle_seed: int | None = None,
        first_pass: int = 0,
        skipped: Skipped | None = None,
        augment: Augmentation | None = None,
    ) -> Any:
        """Batches for `model.fit` and `model.predict`, decoded in parallel and read ahead.

        Without a seed the order is that of the set. With one, each pass over the dataset has another order,
        drawn from (`shuffle_seed`, number of the pass): the same seed gives the same sequence of orders,
        whatever TensorFlow's global seed is. Wrap the consumer in `decode_errors` to get a `DataError` for a
        broken file.

        Args:
            batch_size: images in a batch; the last one of a pass may have fewer.
            shuffle_seed: shuffle, anew for each pass.
            first_pass: number of the first pass, to go on with a training that was cut off.
            skipped: leave out the images that can't be decoded, and count them there; the others keep their
                order and fill the batches, of which there may be fewer than `steps`. Without, such an image is
                an error.
            augment: vary the images at random, each by (`shuffle_seed`, number of the pass, its index).

        Returns:
            `tf.data.Dataset` of (float32 images (b, size, size, channels), int32 labels (b,)).

        Raises:
            UserError: `batch_size` is under 1, or `augment` is given without a seed.
        """
        self.steps(batch_size)
        prepare = preparation(self.preprocessing, augment, shuffle_seed)
        order = passes(len(self), shuffle_seed, first_pass)
        return batched(order, self.source, self.labels, prepare, batch_size, skipped)

    def arrays(
        self, batch_size: int, *, shuffle_seed: int | None = None, skipped: Skipped | None = None
    ) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int32]]]:
        """One pass over `batches` as NumPy arrays; with `skipped`, without the images that can't be decoded.

        Raises:
            DataError: an image can't be read; the message names the file.
            UserError: `batch_size` is under 1.
        """
        with decode_errors():
            yield from self.batches(batch_size, shuffle_seed=shuffle_seed, skipped=skipped).as_numpy_iterator()

    def take(self, n: int, seed: int) -> "ImageSet":
        """A random subset, its classes in proportion as far as `n` allows.

        The images come in random order. With the same seed, `take(m)` for m < n are the first m of `take(n)`.

        Args:
            n: how many images; with more than there are, all of them are taken.
            seed: the same seed takes the same images.

        Returns:
            A set of min(n, len(self)) images.

        Raises:
            UserError: `n` is under 1.
        """
        if n < 1:
            raise UserError(f"A subset needs at least 1 image. Received: n={n}. Give 1 or more.")
        return self.select(stratified_order(self.labels, seed)[:n])

    def fingerprint(self) -> str:
        """What tells these images and labels, in this order, from others; preprocessing doesn't count."""
        return digest(self.labels.tobytes(), self.source.fingerprint().encode())

    def select(self, indices: NDArray[np.int64], name: str | None = None) -> "ImageSet":
        """The images at `indices`, in that order, under another name if one is given."""
        return replace(self, name=name or self.name, labels=self.labels[indices], source=self.source.select(indices))
