"""Checks on the data of a run, before the first step."""

import logging
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_qat.errors import DataError, UserError

TrainData = Callable[[int], Any]
"""Epoch (from 1) → a finite `tf.data.Dataset` of (images, integer labels) batches, shuffled for it."""

_INFINITE, _UNKNOWN = -1, -2  # tf.data.INFINITE_CARDINALITY, tf.data.UNKNOWN_CARDINALITY
_NEGATIVE, _SUM = 1e-3, 0.25  # room for outputs that are themselves quantized

_logger = logging.getLogger(__name__)


def first_epoch(train: TrainData) -> Any:
    """Return the data of epoch 1.

    Raises:
        UserError: `train` isn't a function of the epoch.
    """
    if not callable(train):
        raise UserError(
            "`train` must be a function that gives the data of an epoch, so that a resumed run sees the same "
            f"order. Received: {type(train).__name__}. Use `lambda epoch: dataset`."
        )
    return train(1)


def count_steps(dataset: Any, limit: int | None, what: str) -> int:
    """Return how many batches one pass takes, at most `limit`.

    A dataset that doesn't know its length is read once to count.

    Raises:
        UserError: the dataset is endless and there is no limit.
        DataError: the dataset is empty.
    """
    length = int(dataset.cardinality())
    if length == _INFINITE and limit is None:
        raise UserError(
            f"The {what} data never ends. Received: {dataset!r}. Set `steps_per_epoch`, or drop the `repeat()`."
        )
    if length == _UNKNOWN:
        _logger.info("Counting the batches of the %s data, which doesn't know its length.", what)
        length = sum(1 for _ in (dataset if limit is None else dataset.take(limit)))
    if length == 0:
        raise DataError(f"The {what} data holds no batch. Received: {dataset!r}. Check the folder and the split.")
    return length if limit is None else (limit if length == _INFINITE else min(length, limit))


def require_probabilities(model: keras.Model, selection: Any) -> None:
    """Run one image to see that the model ends in a softmax; logits would train to nonsense.

    Raises:
        UserError: the output isn't one row of probabilities an image.
    """
    images = next(iter(selection))[0]
    output = model(images[:1], training=False)
    row = np.asarray(keras.ops.convert_to_numpy(output)) if keras.ops.is_tensor(output) else np.zeros(0)
    shaped = row.ndim == 2  # noqa: PLR2004
    if not shaped or row.min() < -_NEGATIVE or abs(float(row.sum()) - 1) > _SUM:
        raise UserError(
            "The model must give one row of class probabilities an image. Received: an output of shape "
            f"{row.shape} that sums to {float(row.sum()):.3g}. Add a softmax as the last layer."
        )
