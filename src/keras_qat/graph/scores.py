"""What the scores of a model mean, as its last layer shows.

From what a classifier writes to classes: the one place that knows what a single score says.

A single score speaks of the second of two classes and leaves the rest to the first:

    probability   p  →  (1 - p, p)     second class where p > 0.5
    logit         z  →  (-z, z)        second class where z > 0

So all that ranks, compares or trains classes reads a row of scores, whatever the model writes. 1 - p is exact in
float32 from p = 0.5 on, so the threshold is exactly where it should be; a tie is the first class.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
from keras.src.ops import nn  # the operations behind `keras.ops` calls in a graph

from keras_qat.graph.facts import Node
from keras_qat.graph.read import Trace
from keras_qat.types import OpKind, ScoreMeaning

_AXES = 2
"""Of scores: images and classes."""

_SEEN_THROUGH = frozenset({OpKind.RESHAPE, OpKind.IDENTITY, OpKind.FAKE_QUANTIZE, OpKind.AVERAGE_POOL})
"""What lies behind a score and leaves its threshold where it is: a mean of probabilities, or of logits, is one, too.

A RESHAPE may be a slice or a crop, of several scores; only one that keeps all numbers is seen through.
"""

_ENDS_IN_ACTIVATION = frozenset({OpKind.CONV, OpKind.DENSE, OpKind.ACTIVATION})

_MEANINGS: Mapping[str | None, ScoreMeaning] = {"sigmoid": "probability", None: "logit"}
"""By the activation of the last layer."""

_OPERATIONS: Mapping[type, str] = {nn.Sigmoid: "sigmoid"}
"""Activations that are `keras.ops` calls, and so have no name of their own."""


def score_meaning(found: Trace) -> ScoreMeaning | None:
    """What a classifier's scores mean.

    Args:
        found: the model; `trace` refuses one without a graph.

    Returns:
        `None` for a model that is no classifier: of several outputs, of another shape than (batch, classes), or of a
        single score whose last layer has neither a sigmoid nor no activation, or that is cut out of several.

    Example:
        >>> import keras
        >>> from keras_qat.graph import trace
        >>> score_meaning(trace(keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, "sigmoid")])))
        'probability'
    """
    outputs = found.graph.outputs
    shape = found.shape(outputs[0])
    if len(outputs) != 1 or len(shape) != _AXES or shape[1] is None:
        return None
    return "classes" if shape[1] > 1 else _of_one(_last(found, outputs[0]))


def _of_one(node: Node) -> ScoreMeaning | None:
    if node.kind not in _ENDS_IN_ACTIVATION:
        return None
    activation = _OPERATIONS.get(node.layer_type, node.activation) if node.layer_type else node.activation
    # An activation without a name is an operation that isn't in the table.
    return None if node.kind is OpKind.ACTIVATION and activation is None else _MEANINGS.get(activation)


def _last(found: Trace, tensor: str) -> Node:
    """The node that makes a tensor, seen through what only moves or averages it."""
    node = found.graph.producer(tensor)
    seen = node.kind in _SEEN_THROUGH and node.inputs and (node.kind is not OpKind.RESHAPE or _keeps_all(found, node))
    return _last(found, node.inputs[0]) if seen else node


def _keeps_all(found: Trace, node: Node) -> bool:
    """Whether an image has as many numbers behind a node as before; of sizes that aren't known nobody can say."""
    before, after = (_numbers(found.shape(tensor)) for tensor in (node.inputs[0], node.outputs[0]))
    return before is not None and before == after


def _numbers(shape: tuple[int | None, ...]) -> int | None:
    known = [side for side in shape[1:] if side is not None]
    return math.prod(known) if len(known) == len(shape) - 1 else None


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
