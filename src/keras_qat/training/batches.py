"""The data of a run, and what must hold of them before the first step."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras

from keras_qat.errors import DataError, UserError
from keras_qat.training.checks import labels_missing, require_label_free, require_labels, require_probabilities
from keras_qat.training.recipe import Recipe

TrainData = Callable[[int], Any]
"""Epoch (from 1) → a finite `tf.data.Dataset` of (images, integer labels) batches, shuffled for it.

Labels of -1 stand for images without."""

_INFINITE, _UNKNOWN = -1, -2  # tf.data.INFINITE_CARDINALITY, tf.data.UNKNOWN_CARDINALITY

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EpochData:
    """What a run trains on and is chosen by.

    Args:
        train: gives the data of epoch 1, 2, …
        steps: of one epoch, no more than the data gives.
        selection: batches to choose the best epoch by.
        selection_steps: how many.
        batch_size: images of the first training batch; others may have fewer.
        labelled: whether both have labels.
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
    """Count the batches, and try the models on the first one.

    Args:
        train: gives the data of an epoch.
        selection: batches to choose the best epoch by.
        recipe: the most steps of one epoch, and whether labels are needed.
        model: what is trained.
        teacher: what it is to agree with, of the same inputs and classes.

    Raises:
        UserError: the data are endless, of another kind, or without labels that fit and are needed, or a model gives
            no probabilities.
        DataError: there is no batch.
    """
    first = first_epoch(train)
    steps = count_steps(first, recipe.steps_per_epoch, "training")
    selection_steps = count_steps(selection, None, "selection")
    images, chosen_by = first_batch(selection, "selection")
    classes = require_probabilities(model, images)
    if teacher is not None:
        require_probabilities(teacher, images, "teacher")
    images, trained_on = first_batch(first, "training")
    labelled = True
    for labels, what in ((chosen_by, "selection"), (trained_on, "training")):
        if labels_missing(labels):
            require_label_free(recipe)
            labelled = False
        else:
            require_labels(labels, classes, what)
    return EpochData(train, steps, selection, selection_steps, len(images), labelled)


def first_epoch(train: TrainData) -> Any:
    """Return the data of epoch 1.

    Raises:
        UserError: `train` isn't a function of the epoch.
    """
    if not callable(train):
        raise UserError(
            "`train` must be a function that gives the data of an epoch, so that a resumed run sees the same "
            f"order. Received: {type(train).__name__}. Use `lambda epoch: {_how_to_call(train)}`."
        )
    return train(1)


def count_steps(dataset: Any, limit: int | None, what: str) -> int:
    """Return how many batches one pass takes, at most `limit`.

    A dataset that doesn't know its length is read once to count.

    Raises:
        UserError: the dataset is endless and there is no limit, or it is no `tf.data.Dataset`.
        DataError: the dataset is empty.
    """
    if not hasattr(dataset, "cardinality"):
        raise UserError(
            f"The {what} data must be a `tf.data.Dataset` of (images, labels) batches. Received: "
            f"{type(dataset).__name__}. {_how_to_make(dataset)}"
        )
    length = int(dataset.cardinality())
    if length == _INFINITE and limit is None:
        part = "Set `steps_per_epoch`" if what == "training" else "Use a part of it, `dataset.take(n)`"
        raise UserError(f"The {what} data never ends. Received: {dataset!r}. {part}, or drop the `repeat()`.")
    if length == _UNKNOWN:
        _logger.info("Counting the batches of the %s data, which doesn't know its length.", what)
        length = sum(1 for _ in (dataset if limit is None else dataset.take(limit)))
    if length == 0:
        raise DataError(f"The {what} data holds no batch. Received: {dataset!r}. Check the folder and the split.")
    return length if limit is None else (limit if length == _INFINITE else min(length, limit))


def first_batch(dataset: Any, what: str) -> tuple[Any, Any]:
    """The first images and labels.

    Raises:
        UserError: the batches have no labels.
    """
    batch = next(iter(dataset))
    if not isinstance(batch, tuple) or len(batch) < 2:  # noqa: PLR2004
        raise UserError(
            f"The batches of the {what} data must be (images, labels). Received: {type(batch).__name__} without "
            "labels. Where the recipe only distills, give -1 for each: "
            "`dataset.map(lambda images: (images, tf.fill(tf.shape(images)[:1], -1)))`."
        )
    return batch[0], batch[1]


def _how_to_call(train: Any) -> str:
    return "images.batches(64, shuffle_seed=epoch)" if hasattr(train, "batches") else "dataset"


def _how_to_make(dataset: Any) -> str:
    if hasattr(dataset, "batches"):
        return "Use its `.batches(64)`."
    return (
        "Use `tf.data.Dataset.from_tensor_slices((images, labels)).batch(64)`, or `from_generator` for other sources."
    )
