"""A classifier's scores as one score per class, whatever the model writes.

A single score is that of the second of two classes, and determines the score of the first:

    probability   p  →  (1 - p, p)     second class if p > 0.5
    logit         z  →  (-z, z)        second class if z > 0

All code that ranks, compares or trains classes goes through these functions. 1 - p is exact in float32 for p ≥ 0.5, so
the threshold is exact; a tie goes to the first class.
"""

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from keras_qat.types import ScoreMeaning

_FIRST_CLASS: Mapping[ScoreMeaning, Callable[[Any], Any]] = {
    "probability": lambda p: 1 - p,
    "logit": lambda z: 0 - z,  # -z of 0 is -0.0, which Keras's argmax takes for less than 0
}
"""The score of the first class, from the single score, which is that of the second class."""


def per_class(scores: Any, meaning: ScoreMeaning) -> Any:
    """One score per class, the highest for the best class.

    Args:
        scores: float array or tensor of shape (batch, …, classes), or (batch, …, 1) for a single score.
        meaning: what the scores mean.

    Returns:
        The scores themselves, or for a single score an array or tensor of shape (batch, …, 2).

    Example:
        >>> per_class(np.array([[0.25], [1.0]]), "probability").tolist()
        [[0.75, 0.25], [0.0, 1.0]]
    """
    if meaning not in _FIRST_CLASS:
        return scores
    join = keras.ops.concatenate if keras.ops.is_tensor(scores) else np.concatenate
    return join([_FIRST_CLASS[meaning](scores), scores], -1)


def best_class(scores: Any, meaning: ScoreMeaning) -> Any:
    """The index of the best class of each image, or of each of its positions; the first one of a tie.

    Args:
        scores: as for `per_class`.
        meaning: what the scores mean.

    Returns:
        An integer array or tensor of shape (batch, …).

    Example:
        >>> best_class(np.array([[-3.0], [0.0], [0.1]]), "logit").tolist()
        [0, 0, 1]
    """
    argmax = keras.ops.argmax if keras.ops.is_tensor(scores) else np.argmax
    return argmax(per_class(scores, meaning), -1)


def classes_of(width: int, meaning: ScoreMeaning) -> int:
    """The number of classes that a row of scores distinguishes.

    Args:
        width: the length of the last axis of the scores.
        meaning: what the scores mean.

    Example:
        >>> classes_of(10, "classes"), classes_of(1, "logit")
        (10, 2)
    """
    return width + (meaning in _FIRST_CLASS)
