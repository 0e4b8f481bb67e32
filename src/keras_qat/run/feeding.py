"""The batches that a model of a fixed batch size reads, from data of any number of inputs."""

from typing import Any

from keras_qat.data import DataSet
from keras_qat.errors import DataError


def batch_size(model: Any, preferred: int) -> int:
    """The batch size that a model was built with, or the preferred one if it takes any.

    Example:
        >>> import keras
        >>> batch_size(keras.Sequential([keras.Input((4,), batch_size=2)]), 32)
        2
    """
    sizes = (tensor.shape[0] for tensor in model.inputs)
    return next((size for size in sizes if size is not None), preferred)


def whole_batches(images: DataSet, model: Any) -> DataSet:
    """As many inputs as fill whole batches of a model that was built with a fixed batch size; else all.

    Args:
        images: the data.
        model: the Keras model that will read them.

    Raises:
        DataError: If there is not even one batch.
    """
    size = batch_size(model, 1)
    count = len(images) - len(images) % size
    if not count:
        raise DataError(
            f"The model was built for batches of {size}, and {images.name} has fewer inputs. "
            f"Received: {len(images)} input(s). Give more, or build the model without a batch size."
        )
    return images if count == len(images) else images.take(count, seed=0)
