"""Images with or without labels, and the batches that a network reads: a `tf.data` pipeline."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from keras_qat.data import augmentation, fingerprint, image_files, sources, stratified
from keras_qat.data.image_targets import ImageTargets
from keras_qat.data.preprocessing import Preprocessing
from keras_qat.errors import MOST_IMAGES_AT_ONCE, DataError, UserError, require_whole
from keras_qat.types import UNLABELLED, TaskKind


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images, mostly labelled, with the preprocessing of one network.

    Args:
        name: what a report calls the set, such as `"digits/validation"`.
        labels: int32 array of shape (n,): the index of each image's class; all -1 if the classes are not known.
        source: where the pixels come from.
        preprocessing: what is done to each image.
        targets: labels that aren't classes of whole images: class maps, or numbers. The classes are all -1 then.

    Raises:
        DataError: If the labels are not int32, or not one for each image.

    Example:
        >>> images = np.zeros((5, 8, 8, 3), "uint8")
        >>> data = ImageSet.from_arrays("black", images, [0, 1, 0, 1, 0], Preprocessing("tf", 8, 8))
        >>> [x.shape for x, y in data.arrays(2)]
        [(2, 8, 8, 3), (2, 8, 8, 3), (1, 8, 8, 3)]
    """

    name: str
    labels: NDArray[np.int32]
    source: sources.ImageSource
    preprocessing: Preprocessing
    targets: ImageTargets | None = None

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
            name: what a report calls the set.
            images: uint8 RGB array of shape (n, height, width, 3).
            labels: n integers.
            preprocessing: what is done to each image.

        Raises:
            DataError: If `images` is not uint8 RGB, or there is not one label for each image.
        """
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:  # noqa: PLR2004
            raise DataError(
                f"{name} needs uint8 RGB images of shape (n, height, width, 3). "
                f"Received: shape {images.shape}, type {images.dtype}. "
                "Give values from 0 to 255, three channels last."
            )
        return cls(name, np.asarray(labels, np.int32), sources.ArraySource(images), preprocessing)

    @classmethod
    def from_files(
        cls,
        name: str,
        paths: Sequence[str | Path],
        labels: Sequence[int] | NDArray[Any],
        preprocessing: Preprocessing,
    ) -> "ImageSet":
        """Make a set from image files, which are decoded each time they are read.

        An unreadable file is found only when it is read.

        Args:
            name: what a report calls the set.
            paths: n files.
            labels: n integers.
            preprocessing: what is done to each image.

        Raises:
            DataError: If there is not one label for each file.
        """
        source = sources.FileSource(tuple(str(path) for path in paths))
        return cls(name, np.asarray(labels, np.int32), source, preprocessing)

    def __len__(self) -> int:
        """The number of images."""
        return len(self.labels)

    @property
    def labelled(self) -> bool:
        """Whether there are targets, or the classes of the images are known; if they are not, every label is -1."""
        return self.targets is not None or not len(self) or bool(np.any(self.labels != UNLABELLED))

    @property
    def label_kinds(self) -> tuple[TaskKind, ...]:
        """What the labels say, as a tuple of one kind; empty without labels."""
        if self.targets is not None:
            return (self.targets.kind,)
        return ("classification",) if self.labelled else ()

    def steps(self, batch_size: int) -> int:
        """The number of batches in one pass; the last batch may be smaller.

        Raises:
            UserError: If `batch_size` isn't a whole number from 1 to 65,536.
        """
        return -(-len(self) // require_whole("batch_size", batch_size, most=MOST_IMAGES_AT_ONCE))

    def batches(
        self,
        batch_size: int,
        *,
        shuffle_seed: int | None = None,
        first_pass: int = 0,
        skipped: sources.Skipped | None = None,
        augment: augmentation.Augmentation | None = None,
    ) -> Any:
        """Batches for `model.fit` and `model.predict`, decoded in parallel and read ahead.

        Without a seed the order is that of the set. With a seed, each pass over the dataset has another order, drawn
        from (`shuffle_seed`, number of the pass): the same seed gives the same sequence of orders, whatever
        TensorFlow's global seed is. Wrap the consumer in `decode_errors` to get a `DataError` for a broken file.

        Args:
            batch_size: the number of images in a batch; the last batch of a pass may have fewer.
            shuffle_seed: shuffle the images, anew for each pass.
            first_pass: the number of the first pass, to resume an interrupted training.
            skipped: leave out the images that can't be decoded, and count them there. The others keep their order and
                fill the batches, of which there may be fewer than `steps`. Without it, such an image is an error.
            augment: vary the images at random, each by (`shuffle_seed`, number of the pass, its index).

        Returns:
            `tf.data.Dataset` of (float32 images (b, height, width, channels), labels): int32 classes (b,), int32 class
            maps (b, height, width), or float32 numbers (b, …).

        Raises:
            UserError: If `batch_size` is less than 1, or `augment` is given without a seed or for images whose labels
                are numbers.
        """
        self.steps(batch_size)
        prepare = self._preparation(augment, shuffle_seed)
        order = _passes(len(self), shuffle_seed, first_pass)
        read = self.source.reader(skipped)
        label = self._labelling(augment, shuffle_seed)

        def finish(image: Any, index: Any, number: Any) -> tuple[Any, Any]:
            return prepare(image, index, number), label(index, number)

        if skipped is None:
            images = order.map(lambda index, number: finish(read(index), index, number), tf.data.AUTOTUNE)
        else:
            images = (
                order.map(lambda index, number: (read(index), index, number), tf.data.AUTOTUNE)
                .filter(lambda image, *_: tf.size(image) > 0)
                .map(finish, tf.data.AUTOTUNE)
            )
        options = tf.data.Options()
        options.deterministic = True
        return images.batch(batch_size).prefetch(tf.data.AUTOTUNE).with_options(options)

    def _preparation(self, augment: augmentation.Augmentation | None, seed: int | None) -> Any:
        """A function from an image, its index and the number of the pass to what the network reads."""
        if augment is None:
            return lambda image, index, number: self.preprocessing.prepare(image)  # noqa: ARG005
        if seed is None:
            raise UserError(
                "Only training images are varied, in an order of their own. Received: augment without shuffle_seed. "
                "Give a seed, or leave the augmentation out."
            )
        return lambda image, index, number: augment.prepare(image, self.preprocessing, (seed, number, index))

    def _labelling(self, augment: augmentation.Augmentation | None, seed: int | None) -> Any:
        """A function from the index of an image and the number of the pass to its label."""
        if self.targets is not None:
            return self.targets.reader(self.preprocessing, augment, seed)
        with tf.device("CPU:0"):
            labels = tf.constant(self.labels)
        return lambda index, number: tf.gather(labels, index)  # noqa: ARG005

    def arrays(
        self, batch_size: int, *, shuffle_seed: int | None = None, skipped: sources.Skipped | None = None
    ) -> Iterator[tuple[NDArray[np.float32], NDArray[Any]]]:
        """One pass over `batches` as NumPy arrays.

        Args:
            batch_size: as for `batches`, like all other arguments.
            shuffle_seed: shuffle the images.
            skipped: leave out the images that can't be decoded, and count them there.

        Raises:
            DataError: If an image can't be read; the message names the file.
            UserError: If `batch_size` is less than 1.
        """
        with image_files.decode_errors():
            yield from self.batches(batch_size, shuffle_seed=shuffle_seed, skipped=skipped).as_numpy_iterator()

    def take(self, n: int, seed: int) -> "ImageSet":
        """A random subset, its classes in proportion as far as `n` allows.

        The images come in random order. With the same seed, `take(m)` for m < n gives the first m of `take(n)`.

        Args:
            n: the number of images; all are taken if there are fewer.
            seed: the same seed takes the same images.

        Returns:
            A set of min(n, len(self)) images.

        Raises:
            UserError: If `n` isn't a whole number of at least 1.
        """
        n = require_whole("n", n)
        return self.select(stratified.stratified_order(self.labels, seed)[:n])

    def fingerprint(self) -> str:
        """A digest of these images and labels in this order; preprocessing doesn't count."""
        targets = () if self.targets is None else (self.targets.fingerprint().encode(),)
        return fingerprint.digest(self.labels.tobytes(), self.source.fingerprint().encode(), *targets)

    def select(self, indices: NDArray[np.int64], name: str | None = None) -> "ImageSet":
        """The images at `indices`, in that order, under another name if one is given."""
        return replace(
            self,
            name=name or self.name,
            labels=self.labels[indices],
            source=self.source.select(indices),
            targets=None if self.targets is None else self.targets.select(indices),
        )


def _passes(count: int, seed: int | None, first_pass: int = 0) -> Any:
    """A dataset of indices; with a seed, in another order each time it is iterated.

    The k-th pass is the permutation that NumPy draws from (`seed`, k). So TensorFlow's global seed does not matter, and
    a training that resumes at pass k sees what an uninterrupted one would have seen.

    Args:
        count: the number of images.
        seed: `None` for 0, 1, 2 … in every pass.
        first_pass: the number of the first pass.

    Returns:
        `tf.data.Dataset` of `count` pairs of int64 scalars: index, number of the pass. Without a seed all passes
        are equal and have the number of the first.

    Example:
        >>> def order(dataset):
        ...     return [(int(index), int(number)) for index, number in dataset.as_numpy_iterator()]
        >>> shuffled = _passes(4, seed=1)
        >>> first, second = (order(shuffled) for _ in range(2))
        >>> sorted(first), second == order(_passes(4, seed=1, first_pass=1))
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
