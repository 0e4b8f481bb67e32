"""Whether models and labels are such that training them means something."""

from typing import Any

import keras
import numpy as np

from keras_qat.errors import UserError
from keras_qat.graph import score_meaning, trace
from keras_qat.scores import classes_of
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
