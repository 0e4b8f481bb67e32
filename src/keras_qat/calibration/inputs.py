"""Images in any form that Keras knows → batches of NumPy arrays, as many images as wanted."""

import logging
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from keras_qat.calibration.batch import arrays_of
from keras_qat.calibration.sources import open_source
from keras_qat.errors import DataError, UserError
from keras_qat.progress import track_images

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
    """The arrays of each batch that isn't empty, under a progress bar.

    Args:
        data: images, (batch, …) in the axes and with the preprocessing of the model's training, as
            - an array of all images (NumPy, a tensor, a memory map, a dataset of an HDF5 file), or a dictionary of such
              arrays by input; it is cut into batches;
            - an iterable of batches: a list, a generator, a DataLoader;
            - a batched `tf.data.Dataset`, or a `keras.utils.PyDataset`.
            A batch is an array, a list of arrays for several inputs, or a dictionary of arrays; or such an x in a tuple
            (x, labels) or (x, labels, weights), of which only x is read.
        model: what will read the images.
        images: stop after exactly so many; all if not given. With fewer there is a warning.
        batch_size: images in a batch, for arrays that aren't cut into batches yet.
        description: what is being done, for the progress bar and the warning.
        total: number of batches, for the progress bar, where the data can't say.

    Returns:
        For each batch a list of arrays, one for each of `model.inputs`, in the type that they came in.

    Raises:
        DataError: the data can't be read, doesn't fit the model, isn't finite, or never ends and `images` isn't given.
            A generator can't be asked whether it ends.
        UserError: `images` or `batch_size` is under 1.

    Example:
        >>> import keras
        >>> x = keras.Input((4, 4, 3))
        >>> model = keras.Model(x, keras.layers.ReLU()(x))
        >>> data = np.zeros((10, 4, 4, 3), "uint8")
        >>> [len(x) for (x,) in read_batches(data, model, images=7, batch_size=4, description="reading")]
        [4, 3]
    """
    for name, value in (("images", images), ("batch_size", batch_size)):
        if value is not None and value < 1:
            raise UserError(f"`{name}` must be at least 1. Received: {value}. Give a larger number.")
    source = open_source(data, model, batch_size)
    if source.endless and images is None:
        raise DataError(
            f"These images never end. Received: {type(data).__name__}, of infinite length. "
            "Say how many to take: `images=256`."
        )
    batches = (arrays_of(batch, model) for batch in source.batches)
    taken = _take(batches, images, description)
    return track_images(taken, lambda x: len(x[0]), description, total or source.steps, images)


def _take(batches: Iterable[list[np.ndarray]], images: int | None, description: str) -> Iterator[list[np.ndarray]]:
    """The first `images` images; the last batch is cut, and none is read after it."""
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
