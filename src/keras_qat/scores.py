"""From what a classifier writes to classes: the one place that knows what a single score says.

A single score speaks of the second of two classes and leaves the rest to the first:

    probability   p  →  (1 - p, p)     second class where p > 0.5
    logit         z  →  (-z, z)        second class where z > 0

So all that ranks, compares or trains classes reads a row of scores, whatever the model writes. 1 - p is exact in
float32 from p = 0.5 on, so the threshold is exactly where it should be; a tie is the first class.
"""

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from keras_qat.types import ScoreMeaning

_OF_THE_FIRST: Mapping[ScoreMeaning, Callable[[Any], Any]] = {
    "probability": lambda p: 1 - p,
    "logit": lambda z: 0 - z,  # -z of 0 is -0, which Keras's argmax takes for less
}
"""The first class's score, of the second one's."""


def per_class(scores: Any, meaning: ScoreMeaning) -> Any:
    """One score for each class, the best the highest.

    Args:
        scores: float array or tensor, shape (batch, classes), or (batch, 1) for a single score.
        meaning: of them.

    Returns:
        The scores themselves, or for a single score shape (batch, 2), of the same type.

    Example:
        >>> per_class(np.array([[0.25], [1.0]]), "probability").tolist()
        [[0.75, 0.25], [0.0, 1.0]]
    """
    if meaning not in _OF_THE_FIRST:
        return scores
    join = keras.ops.concatenate if keras.ops.is_tensor(scores) else np.concatenate
    return join([_OF_THE_FIRST[meaning](scores), scores], -1)


def best_class(scores: Any, meaning: ScoreMeaning) -> Any:
    """The number of the best class of each image; of equal ones the first.

    Args:
        scores: as for `per_class`.
        meaning: of them.

    Returns:
        Integers, an array or tensor of shape (batch,).

    Example:
        >>> best_class(np.array([[-3.0], [0.0], [0.1]]), "logit").tolist()
        [0, 0, 1]
    """
    argmax = keras.ops.argmax if keras.ops.is_tensor(scores) else np.argmax
    return argmax(per_class(scores, meaning), -1)


def classes_of(width: int, meaning: ScoreMeaning) -> int:
    """How many classes a row of that many scores tells apart.

    Example:
        >>> classes_of(10, "classes"), classes_of(1, "logit")
        (10, 2)
    """
    return width + (meaning in _OF_THE_FIRST)
