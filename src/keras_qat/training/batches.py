"""The data of a training run, and the checks that models and labels pass before the first step."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_qat.errors import DataError, UserError
from keras_qat.graph import classes_of, require_finite, score_meaning, trace
from keras_qat.training.recipe import Recipe
from keras_qat.types import UNLABELLED

TrainData = Callable[[int], Any]
"""Epoch (from 1) → a finite `tf.data.Dataset` of (images, integer labels) batches, shuffled for that epoch.

A label of -1 marks an image without a label."""

_INFINITE, _UNKNOWN = -1, -2  # tf.data.INFINITE_CARDINALITY, tf.data.UNKNOWN_CARDINALITY
_CHECKED_IMAGES = 8  # the logits of a single image may look like probabilities by chance
_NEGATIVE, _SUM_ERROR = 1e-3, 0.25  # tolerances, wide enough for outputs that are themselves quantized

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EpochData:
    """The batches that a run trains on, and those that choose its best epoch.

    Args:
        train: gives the batches of epoch 1, 2, …
        steps: steps of one epoch, at most as many as the data has batches.
        selection: the batches that choose the best epoch.
        selection_steps: number of selection batches.
        batch_size: number of images in the first training batch; later batches may be smaller.
        labelled: whether both the training and the selection data have labels.
    """

    train: TrainData
    steps: int
    selection: Any
    selection_steps: int
    batch_size: int
    labelled: bool = True


def read_data(
    train: TrainData,
    selection: Any,
    recipe: Recipe,
    model: keras.Model,
    teacher: keras.Model | None = None,
) -> EpochData:
    """Count the batches, and run the models on the first one.

    Args:
        train: gives the batches of an epoch.
        selection: the batches that choose the best epoch.
        recipe: sets the largest number of steps per epoch, and whether labels are required.
        model: the model to train.
        teacher: the model to distill from, with the same inputs and classes.

    Raises:
        UserError: If `train` isn't a function of the epoch, if the data is endless or not a `tf.data.Dataset`, if
            labels are required but missing or don't match the classes, or if a model doesn't give probabilities.
        DataError: If the training or the selection data has no batch.
    """
    first = _first_epoch(train)
    steps = _count_steps(first, recipe.steps_per_epoch, "training")
    selection_steps = _count_steps(selection, None, "selection")
    images, selection_labels = _first_batch(selection, "selection")
    classes = require_probabilities(model, images)
    if teacher is not None:
        require_probabilities(teacher, images, "teacher")
    images, train_labels = _first_batch(first, "training")
    labelled = True
    for labels, what in ((selection_labels, "selection"), (train_labels, "training")):
        if _labels_missing(labels):
            require_label_free(recipe)
            labelled = False
        else:
            _require_labels(labels, classes, what)
    return EpochData(train, steps, selection, selection_steps, len(images), labelled)


def _first_epoch(train: Any) -> Any:
    """Return the data of epoch 1, if `train` is a function of the epoch."""
    if not callable(train):
        call = "images.batches(64, shuffle_seed=epoch)" if hasattr(train, "batches") else "dataset"
        raise UserError(
            "`train` must be a function that gives the data of an epoch, so that a resumed run sees the same "
            f"order. Received: {type(train).__name__}. Use `lambda epoch: {call}`."
        )
    return train(1)


def _count_steps(dataset: Any, limit: int | None, what: str) -> int:
    """Return the number of batches in one pass, at most `limit`; a dataset of unknown length is read once to count."""
    if not hasattr(dataset, "cardinality"):
        advice = (
            "Use its `.batches(64)`."
            if hasattr(dataset, "batches")
            else "Use `tf.data.Dataset.from_tensor_slices((images, labels)).batch(64)`, or `from_generator` for other "
            "sources."
        )
        raise UserError(
            f"The {what} data must be a `tf.data.Dataset` of (images, labels) batches. Received: "
            f"{type(dataset).__name__}. {advice}"
        )
    length = int(dataset.cardinality())
    if length == _INFINITE and limit is None:
        advice = "Set `steps_per_epoch`" if what == "training" else "Use a part of it, `dataset.take(n)`"
        raise UserError(f"The {what} data never ends. Received: {dataset!r}. {advice}, or drop the `repeat()`.")
    if length == _UNKNOWN:
        _logger.info("Counting the batches of the %s data, whose length is unknown.", what)
        length = sum(1 for _ in (dataset if limit is None else dataset.take(limit)))
    if length == 0:
        raise DataError(f"The {what} data holds no batch. Received: {dataset!r}. Check the folder and the split.")
    return length if limit is None else (limit if length == _INFINITE else min(length, limit))


def _first_batch(dataset: Any, what: str) -> tuple[Any, Any]:
    """Return the images and the labels of the first batch."""
    batch = next(iter(dataset))
    if not isinstance(batch, tuple) or len(batch) < 2:  # noqa: PLR2004
        raise UserError(
            f"The batches of the {what} data must be (images, labels). Received: {type(batch).__name__} without "
            "labels. Where the recipe only distills, give -1 for each: "
            "`dataset.map(lambda images: (images, tf.fill(tf.shape(images)[:1], -1)))`."
        )
    return batch[0], batch[1]


def require_probabilities(model: keras.Model, images: Any, what: str = "model") -> int:
    """Check on a few images that the model ends in a softmax or a sigmoid; training on logits gives nonsense.

    Args:
        model: a classifier, `(images, …) → (images, classes)`, or `(images, 1)` for a single score.
        images: one batch; the first eight images are used.
        what: how a message names the model, for example `"teacher"`.

    Returns:
        The number of classes; 2 for a single score.

    Raises:
        UserError: If the output isn't one row of finite probabilities per image.
        WeightsError: If that is since a weight is NaN or infinite.
        UnsupportedModelError: If the output is a single score and the model has no graph that shows its last layer.
    """
    output = model(images[:_CHECKED_IMAGES], training=False)
    rows: Any = _to_numpy(output) if keras.ops.is_tensor(output) else np.zeros(0)
    is_matrix = rows.ndim == 2  # noqa: PLR2004
    if is_matrix and not np.isfinite(rows).all():
        require_finite(model)
        raise UserError(
            f"The {what} gives numbers that aren't finite. Received: finite weights. Check its ranges, and that the "
            "images are finite."
        )
    if is_matrix and rows.shape[1] == 1:
        _require_sigmoid(model, what)
        return classes_of(1, "probability")
    sums = rows.sum(axis=-1, keepdims=True)
    if not is_matrix or rows.min() < -_NEGATIVE or np.abs(sums - 1).max() > _SUM_ERROR:
        raise UserError(
            f"The {what} must give one row of class probabilities an image. Received: an output of shape "
            f"{rows.shape} whose first row sums to {float(sums.flat[0]):.3g}. Add a softmax as the last layer."
        )
    return int(rows.shape[1])


def _require_sigmoid(model: keras.Model, what: str) -> None:
    """Refuse a single score that isn't a sigmoid's, by the last layer: a logit may lie between 0 and 1 as well."""
    if score_meaning(trace(model)) != "probability":
        raise UserError(
            f"A {what} of a single score must give the probability of the second of two classes. Received: "
            f"{model.name!r}, which doesn't end in a sigmoid. Add one as the last layer, or a Dense of two units with "
            "a softmax."
        )


def require_label_free(recipe: Recipe) -> None:
    """Refuse a recipe that needs labels, for images that have none.

    Raises:
        UserError: If the recipe trains on labels, alone or beside a teacher, or chooses the best epoch by accuracy.

    Example:
        >>> require_label_free(Recipe())
    """
    if recipe.needs_labels:
        weight = "None" if recipe.distillation is None else f"{recipe.distillation.weight:g}"
        raise UserError(
            "The images have no labels, and the recipe needs them. Received: distillation weight "
            f"{weight}, monitor={recipe.monitor!r}. Distill with weight 1 and choose the epoch by loss, as "
            "`Recipe()` does, or give labels: a folder for each class."
        )


def _labels_missing(labels: Any) -> bool:
    """Return whether all labels of a batch are -1, which marks images without labels.

    Example:
        >>> _labels_missing(np.array([-1, -1])), _labels_missing(np.array([-1, 0]))
        (True, False)
    """
    array = _to_numpy(labels)
    return bool(array.size) and bool(np.all(array == UNLABELLED))


def _require_labels(labels: Any, classes: int, what: str) -> None:
    """Refuse labels other than integers from 0 to classes - 1 of shape (n,) or (n, 1).

    Example:
        >>> _require_labels(np.array([0, 2, 1]), 3, "training")
    """
    array = _to_numpy(labels)
    received = f"{array.dtype} of shape {array.shape}"
    if not (array.ndim == 1 or (array.ndim == 2 and array.shape[1] == 1)):  # noqa: PLR2004
        how = "one-hot labels become numbers by `tf.argmax(labels, axis=-1)`"
    elif not np.issubdtype(array.dtype, np.integer):
        how = "whole numbers become integers by `tf.cast(labels, tf.int32)`"
    elif array.size and not 0 <= array.min() <= array.max() < classes:
        received = f"labels from {array.min()} to {array.max()}"
        one_based = array.min() >= 1 and array.max() == classes
        how = "subtract 1 from labels that count from 1" if one_based else "give the model a class for each label"
    else:
        return
    raise UserError(
        f"The labels of the {what} data must be integers from 0 to {classes - 1}, one an image. Received: {received}. "
        f"Convert them in a `dataset.map`: {how}."
    )


def _to_numpy(array: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(array) if keras.ops.is_tensor(array) else array)
