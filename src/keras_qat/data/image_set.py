"""Images with or without labels, and the batches a network reads."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_qat.data.augmentation import Augmentation
from keras_qat.data.batching import batched, preparation
from keras_qat.data.decode import decode_errors
from keras_qat.data.passes import passes
from keras_qat.data.preprocessing import Preprocessing
from keras_qat.data.skipped import Skipped
from keras_qat.data.sources import ArraySource, FileSource, ImageSource, digest
from keras_qat.data.stratify import stratified_order
from keras_qat.errors import DataError, UserError
from keras_qat.types import UNLABELLED


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
