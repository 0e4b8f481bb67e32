"""Whether models and labels are such that training them means something.

The data of a run, and what must hold of them before the first step.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_qat.errors import DataError, UserError
from keras_qat.graph import classes_of, score_meaning, trace
from keras_qat.training.recipe import Recipe
from keras_qat.types import UNLABELLED

_NEGATIVE, _SUM = 1e-3, 0.25  # room for outputs that are themselves quantized
_TRIED = 8  # images: the logits of one may look like probabilities by chance
_NAMED = 5  # of many broken weights


def require_probabilities(model: keras.Model, images: Any, what: str = "model") -> int:
    """Run some images to see that the model ends in a softmax, or a sigmoid; logits would train to nonsense.

    Args:
        model: gives one row an image.
        images: a batch.
        what: the model's part, for the message.

    Returns:
        The number of classes.

    Raises:
        UserError: the output isn't one row of finite probabilities an image.
        UnsupportedModelError: it is a single score, and the model has no graph that shows which.
    """
    output = model(images[:_TRIED], training=False)
    rows: Any = np.asarray(keras.ops.convert_to_numpy(output)) if keras.ops.is_tensor(output) else np.zeros(0)
    shaped = rows.ndim == 2  # noqa: PLR2004
    if shaped and not np.isfinite(rows).all():
        broken = [w.path for w in model.weights if not np.isfinite(keras.ops.convert_to_numpy(w)).all()]
        more = ", …" if len(broken) > _NAMED else ""
        cause = f"weights that aren't finite: {', '.join(broken[:_NAMED])}{more}" if broken else "finite weights"
        raise UserError(
            f"The {what} gives numbers that aren't finite. Received: {cause}. "
            + ("Load sound weights." if broken else "Check its ranges, and that the images are finite.")
        )
    if shaped and rows.shape[1] == 1:
        _require_sigmoid(model, what)
        return classes_of(1, "probability")
    sums = rows.sum(axis=-1, keepdims=True)
    if not shaped or rows.min() < -_NEGATIVE or np.abs(sums - 1).max() > _SUM:
        raise UserError(
            f"The {what} must give one row of class probabilities an image. Received: an output of shape "
            f"{rows.shape} whose first row sums to {float(sums.flat[0]):.3g}. Add a softmax as the last layer."
        )
    return int(rows.shape[1])


def _require_sigmoid(model: keras.Model, what: str) -> None:
    """One image doesn't tell a probability from a logit that happens to lie between 0 and 1; the last layer does."""
    if score_meaning(trace(model)) != "probability":
        raise UserError(
            f"A {what} of a single score must give the probability of the second of two classes. Received: "
            f"{model.name!r}, which doesn't end in a sigmoid. Add one as the last layer, or a Dense of two units with "
            "a softmax."
        )


def labels_missing(labels: Any) -> bool:
    """Whether the labels of a batch say that nobody knows them: all are -1.

    Example:
        >>> labels_missing(np.array([-1, -1])), labels_missing(np.array([-1, 0]))
        (True, False)
    """
    array = _array(labels)
    return bool(array.size) and bool(np.all(array == UNLABELLED))


def require_label_free(recipe: Recipe) -> None:
    """Refuse a recipe that needs labels, for images that have none.

    Raises:
        UserError: it trains on labels, in part or alone, or chooses the best epoch by accuracy.

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


def require_labels(labels: Any, classes: int, what: str) -> None:
    """Refuse labels that aren't numbers of classes: they would be read as some.

    Args:
        labels: of one batch.
        classes: the number of classes C.
        what: whose labels, for the message.

    Raises:
        UserError: they aren't integers from 0 to C - 1, of shape (n,) or (n, 1).

    Example:
        >>> require_labels(np.array([0, 2, 1]), 3, "training")
    """
    array = _array(labels)
    received = f"{array.dtype} of shape {array.shape}"
    rows = array.ndim == 1 or (array.ndim == 2 and array.shape[1] == 1)  # noqa: PLR2004
    if not rows:
        how = "one-hot labels become numbers by `tf.argmax(labels, axis=-1)`"
    elif not np.issubdtype(array.dtype, np.integer):
        how = "whole numbers become integers by `tf.cast(labels, tf.int32)`"
    elif array.size and not 0 <= array.min() <= array.max() < classes:
        received = f"labels from {array.min()} to {array.max()}"
        shifted = array.min() >= 1 and array.max() == classes
        how = "subtract 1 from labels that count from 1" if shifted else "give the model a class for each label"
    else:
        return
    raise UserError(
        f"The labels of the {what} data must be integers from 0 to {classes - 1}, one an image. Received: {received}. "
        f"Mend them in a `dataset.map`: {how}."
    )


def _array(labels: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(labels) if keras.ops.is_tensor(labels) else labels)


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
