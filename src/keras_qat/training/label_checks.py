"""Whether the labels of a batch are missing, and whether they fit what an output says."""

from collections.abc import Sequence

import numpy as np

from keras_qat.errors import DataError, UserError
from keras_qat.training.losses import VOID
from keras_qat.training.objectives import Objective
from keras_qat.training.recipe import Recipe
from keras_qat.types import UNLABELLED

_COLUMN = 2  # axes of labels of shape (batch, 1)

_CONVERSIONS = {
    True: (
        "in a `dataset.map`",
        "one-hot labels become numbers by `tf.argmax(labels, axis=-1)`",
        "whole numbers become integers by `tf.cast(labels, tf.int32)`",
    ),
    False: (
        "to such numbers",
        "one-hot labels become numbers by `np.argmax(labels, axis=-1)`",
        "whole numbers become integers by `labels.astype('int32')`",
    ),
}
"""Whether the data is a `tf.data.Dataset` → where labels are converted, and how."""


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


def labels_missing(labels: np.ndarray | None) -> bool:
    """Return whether a batch has no labels for an output: none were given, or -1 for each image.

    Example:
        >>> labels_missing(np.array([-1, -1])), labels_missing(np.array([-1, 0]))
        (True, False)
    """
    if labels is None:
        return True
    one_each = labels.ndim == 1 or (labels.ndim == _COLUMN and labels.shape[1] == 1)
    return bool(one_each and labels.size and labels.dtype.kind in "iu" and np.all(labels == UNLABELLED))


def require_labels(objective: Objective, labels: np.ndarray, what: str, *, dataset: bool = False) -> None:
    """Refuse labels that don't fit an output. With a loss of the user's own, any fit.

    Args:
        objective: what the output is trained for.
        labels: the labels of a batch.
        what: how a message names the labels, for example "training data".
        dataset: whether they are those of a `tf.data.Dataset`, for the advice.

    Raises:
        UserError: If the labels have another type or shape, or are out of range.
        DataError: If a number isn't finite.
    """
    if objective.loss is None:
        check = _require_numbers if objective.classes is None else _require_classes
        check(objective, labels, what, dataset)


def _require_classes(objective: Objective, labels: np.ndarray, what: str, dataset: bool) -> None:
    classes = objective.classes or 0
    positions = objective.shape[1:-1]
    where, one_hot, whole = _CONVERSIONS[dataset]
    received = f"{labels.dtype} of shape {labels.shape}"
    counted = labels
    if positions:
        counted = labels[(labels != UNLABELLED) & ((labels != VOID) | (classes > VOID))]
    if not _fits(labels.shape[1:], positions, (*positions, 1)):
        how = one_hot
    elif labels.dtype.kind not in "iu":
        how = whole
    elif counted.size and not 0 <= counted.min() <= counted.max() < classes:
        received = f"labels from {counted.min()} to {counted.max()}"
        one_based = counted.min() >= 1 and counted.max() == classes
        how = "subtract 1 from labels that count from 1" if one_based else "give the model a class for each label"
    else:
        return
    each = (
        f"one a position, of shape (batch, {_listed(positions)}), or -1 where there is none"
        if positions
        else "one an image"
    )
    raise UserError(
        f"The labels of the {what} must be integers from 0 to {classes - 1}, {each}. Received: {received}. "
        f"Convert them {where}: {how}."
    )


def _require_numbers(objective: Objective, labels: np.ndarray, what: str, _dataset: bool) -> None:
    shape = objective.shape[1:]
    column = shape[:-1] if shape and shape[-1] == 1 else shape
    if labels.dtype.kind not in "biuf" or not _fits(labels.shape[1:], shape, column):
        raise UserError(
            f"The labels of the {what} must be numbers of the shape of the output {objective.name!r}, (batch, "
            f"{_listed(shape)}). Received: {labels.dtype} of shape {labels.shape}. Give such labels, or a `loss` of "
            "your own that compares these; if the output gives classes, say so by `tasks`."
        )
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        raise DataError(
            f"The labels of the {what} for the output {objective.name!r} are not finite. Received: NaN or infinity. "
            "Correct them, or leave these images out."
        )


def _fits(axes: Sequence[int], *expected: Sequence[int | None]) -> bool:
    """Whether axes are as expected in one of several ways; an unknown size equals any."""
    return any(
        len(axes) == len(wanted) and all(size in (None, axis) for size, axis in zip(wanted, axes, strict=True))
        for wanted in expected
    )


def _listed(axes: Sequence[int | None]) -> str:
    return ", ".join("…" if axis is None else str(axis) for axis in axes)
