"""Data in any form that `keras_qat.feed` reads → as many images as calibration asks for, under a progress bar."""

import logging
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from keras_qat import feed
from keras_qat.errors import MOST_IMAGES_AT_ONCE, DataError, require_whole
from keras_qat.progress import track_images

_IMAGE_RANK = 4

_logger = logging.getLogger(__name__)


def read_batches(
    data: Any,
    model: Any,
    *,
    images: int | None = None,
    batch_size: int = 32,
    description: str,
    total: int | None = None,
) -> Iterator[list[np.ndarray]]:
    """Yield the arrays of each batch that is not empty, under a progress bar.

    Args:
        data: Images, shape (batch, …), in the axes and with the preprocessing of the model's training, as
            - an array of all images (NumPy, a tensor, a memory map, a dataset of an HDF5 file), or a dictionary of such
              arrays by input, which is cut into batches;
            - an iterable of batches: a list, a generator, a DataLoader;
            - a batched `tf.data.Dataset`, or a `keras.utils.PyDataset`.
            A batch is an array, a list of arrays for several inputs, or a dictionary of arrays; or such an x in a tuple
            (x, labels) or (x, labels, weights), of which only x is read.
        model: The model that will read the images.
        images: The exact number of images to read; all by default. If the data has fewer, a warning is logged.
        batch_size: The number of images in a batch, for arrays that are not cut into batches yet.
        description: What the images are read for, for the progress bar and the warning.
        total: The number of batches, for the progress bar, if the data cannot tell it.

    Returns:
        For each batch a list of arrays, one for each of `model.inputs`, of the type they came in.

    Raises:
        DataError: If the data cannot be read, does not fit the model or is not finite, or if it never ends and `images`
            is not given. A generator cannot be asked whether it ends.
        UserError: If `images` or `batch_size` isn't a whole number of at least 1.

    Example:
        >>> import keras
        >>> x = keras.Input((4, 4, 3))
        >>> model = keras.Model(x, keras.layers.ReLU()(x))
        >>> data = np.zeros((10, 4, 4, 3), "uint8")
        >>> [len(x) for (x,) in read_batches(data, model, images=7, batch_size=4, description="reading")]
        [4, 3]
    """
    images = None if images is None else require_whole("images", images)
    batch_size = require_whole("batch_size", batch_size, most=MOST_IMAGES_AT_ONCE)
    source = feed.open_source(data, model, batch_size)
    if source.endless and images is None:
        raise DataError(
            f"These images never end. Received: {type(data).__name__}, of infinite length. "
            "Say how many to take: `images=256`."
        )
    batches = (feed.arrays_of(batch, model) for batch in source.read(0))
    taken = _take(batches, images, description)
    return track_images(taken, lambda x: len(x[0]), description, total or source.steps, images)


def _take(batches: Iterable[list[np.ndarray]], images: int | None, description: str) -> Iterator[list[np.ndarray]]:
    """Yield the first `images` images. The last batch is cut, and none is read after it."""
    wanted = sys.maxsize if images is None else images
    taken = 0
    for batch in batches:
        x = [array[: wanted - taken] for array in batch]
        if len(x[0]):
            taken += len(x[0])
            yield x
        if taken == wanted:
            return
    if images is not None and taken:
        _logger.warning("%s with %d images: the data has no more of the %d.", description.capitalize(), taken, images)


class Variety:
    """Whether the images of a calibration tell anything, found out batch by batch.

    Images that are all of one colour, such as the black ones of a camera that was covered, have no edges and no
    textures: the ranges of all but the first tensors would be those of the biases.

    Example:
        >>> variety = Variety()
        >>> variety.add([np.zeros((2, 8, 8, 3))])
        >>> variety.plain, variety.problem[:38]
        (True, 'All images are of one and the same col')
    """

    def __init__(self) -> None:
        self._first: list[np.ndarray] = []
        self._images = 0
        self._same = True
        self.plain = True
        """Whether every pixel of all images so far is the same."""

    def add(self, x: Sequence[np.ndarray]) -> None:
        """Look at a batch.

        Args:
            x: one array for each input of the model, of shape (batch, …), channels last.
        """
        if not self._same:
            return
        self._images += len(x[0])
        self._first = self._first or [array[:1] for array in x]
        self._same = self._same and all(map(_all_equal, x, self._first))
        self.plain = self.plain and self._same and all(map(_is_plain, x))

    @property
    def problem(self) -> str | None:
        """What is wrong with the images that were looked at, as a sentence; `None` if nothing is."""
        if not self._same or not self._images:
            return None
        if self.plain:
            colour = self._first[0].reshape(-1, self._first[0].shape[-1])[0]
            return (
                "All images are of one and the same colour, and nothing can be calibrated on those. "
                f"Received: {self._images} image(s) of the number(s) {colour}. "
            )
        return f"All images are the same, and the ranges fit that one. Received: {self._images} equal images. "


def require_variety(batches: Iterable[Sequence[np.ndarray]]) -> None:
    """Refuse images that are all of one colour, before anything is done with them. Most often one batch tells.

    Args:
        batches: for each batch the arrays of all inputs, images of shape (batch, height, width, channels).

    Raises:
        DataError: If every pixel of all images is the same.

    Example:
        >>> require_variety([[np.zeros((2, 8, 8, 3))]])
        Traceback (most recent call last):
        ...
        keras_qat.errors.DataError: All images are of one and the same colour, and nothing can be calibrated on ...
    """
    variety = Variety()
    for x in batches:
        variety.add(x)
        if not variety.plain:
            return
    if variety.plain and variety.problem:
        raise DataError(f"{variety.problem}{VARIETY}")


VARIETY = "Give images like those that the model will see, and check how they are read and prepared."


def _is_plain(array: np.ndarray) -> bool:
    return array.ndim == _IMAGE_RANK and _all_equal(array, array[:1, :1, :1])


def _all_equal(array: np.ndarray, first: np.ndarray) -> bool:
    return bool((array == first).all())
