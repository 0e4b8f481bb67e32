"""What a stage of a run reads: batches of the size that the model takes, from data with any number of inputs."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from keras_qat.data import DataSet
from keras_qat.errors import DataError
from keras_qat.evaluation import arrays_of_inputs


def batch_size(model: Any, preferred: int) -> int:
    """The batch size that a model was built with, or the preferred one if it takes any.

    Args:
        model: a built `keras.Model`.
        preferred: the size for a model that takes any.

    Example:
        >>> import keras
        >>> x = keras.Input((4,), batch_size=2)
        >>> batch_size(keras.Model(x, keras.layers.ReLU()(x)), 32)
        2
    """
    sizes = (tensor.shape[0] for tensor in model.inputs)
    return next((size for size in sizes if size is not None), preferred)


def whole_batches(samples: DataSet, model: Any) -> DataSet:
    """As many samples as fill whole batches of a model that was built with a fixed batch size; all for another model.

    Args:
        samples: the data.
        model: the model that will read them.

    Raises:
        DataError: If there is not even one batch.
    """
    size = batch_size(model, 1)
    count = len(samples) - len(samples) % size
    if not count:
        raise DataError(
            f"The model was built for batches of {size}, and {samples.name} has fewer inputs. "
            f"Received: {len(samples)} input(s). Give more, or build the model without a batch size."
        )
    return samples if count == len(samples) else samples.take(count, seed=0)


def some(samples: DataSet, model: Any, count: int, seed: int = 0) -> DataSet:
    """So many samples, drawn at random, but at least one batch of a model with a fixed batch size."""
    return whole_batches(samples.take(max(count, batch_size(model, 1)), seed), model)


def batches(samples: DataSet, model: Any, preferred: int) -> Iterator[tuple[Any, Any]]:
    """One pass of (inputs, labels) in whole batches of the size that the model takes."""
    return whole_batches(samples, model).arrays(batch_size(model, preferred))


def steps(samples: DataSet, model: Any, preferred: int) -> int:
    """The number of `batches`."""
    return whole_batches(samples, model).steps(batch_size(model, preferred))


def inputs(samples: DataSet, model: Any, preferred: int) -> Iterator[tuple[np.ndarray, ...]]:
    """The inputs of `batches`, always as a tuple with an array for each input of the model."""
    for x, _ in batches(samples, model, preferred):
        yield arrays_of_inputs(x)
