"""The meaning of a classifier's scores: read from the last layer of a model, and turned into one score per class.

A single score is that of the second of two classes, and determines the score of the first:

    probability   p  →  (1 - p, p)     second class if p > 0.5
    logit         z  →  (-z, z)        second class if z > 0

All code that ranks, compares or trains classes goes through these functions, and so reads one score per class whatever
the model writes. 1 - p is exact in float32 for p ≥ 0.5, so the threshold is exact; a tie goes to the first class.
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
"""Axes of an array of scores: (batch, classes)."""

_SEEN_THROUGH = frozenset({OpKind.RESHAPE, OpKind.IDENTITY, OpKind.FAKE_QUANTIZE, OpKind.AVERAGE_POOL})
"""Kinds behind the last layer that keep the threshold of a score: a mean of probabilities, or of logits, is one again.

A RESHAPE may be a slice or a crop out of several scores, so only one that keeps all elements is seen through.
"""

_LAST_LAYERS = frozenset({OpKind.CONV, OpKind.DENSE, OpKind.ACTIVATION})
"""Kinds of layers that can make a score; their activation is the last thing they compute."""

_MEANINGS: Mapping[str | None, ScoreMeaning] = {"sigmoid": "probability", None: "logit"}
"""The meaning of a single score, by the activation of the last layer."""

_OPERATIONS: Mapping[type, str] = {nn.Sigmoid: "sigmoid"}
"""Activations that are calls of `keras.ops`, which have no activation function to name."""

_FIRST_CLASS: Mapping[ScoreMeaning, Callable[[Any], Any]] = {
    "probability": lambda p: 1 - p,
    "logit": lambda z: 0 - z,  # -z of 0 is -0.0, which Keras's argmax takes for less than 0
}
"""The score of the first class, from the single score, which is that of the second class."""


def score_meaning(model: Trace) -> ScoreMeaning | None:
    """The meaning of a classifier's scores.

    Args:
        model: the traced model.

    Returns:
        The meaning, or `None` if the model is not a classifier: it has several outputs, an output of another shape than
        (batch, classes), or a single score that is a slice of several, or whose last layer has an activation other than
        a sigmoid.

    Example:
        >>> from keras_qat.graph import trace
        >>> score_meaning(trace(keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, "sigmoid")])))
        'probability'
    """
    outputs = model.graph.outputs
    shape = model.shape(outputs[0])
    if len(outputs) != 1 or len(shape) != _AXES or shape[1] is None:
        return None
    return "classes" if shape[1] > 1 else _single_score_meaning(_last_layer(model, outputs[0]))


def _single_score_meaning(node: Node) -> ScoreMeaning | None:
    if node.kind not in _LAST_LAYERS:
        return None
    activation = _OPERATIONS.get(node.layer_type, node.activation) if node.layer_type else node.activation
    # An activation without a name is an operation that is not in the table.
    return None if node.kind is OpKind.ACTIVATION and activation is None else _MEANINGS.get(activation)


def _last_layer(model: Trace, tensor: str) -> Node:
    """The node that computes a tensor, before all nodes that only move or average it."""
    node = model.graph.producer(tensor)
    passes = node.kind in _SEEN_THROUGH and node.inputs and (node.kind is not OpKind.RESHAPE or _keeps_all(model, node))
    return _last_layer(model, node.inputs[0]) if passes else node


def _keeps_all(model: Trace, node: Node) -> bool:
    """Whether a node's output has as many elements per image as its input; `False` if a size is unknown."""
    before, after = (_elements(model.shape(tensor)) for tensor in (node.inputs[0], node.outputs[0]))
    return before is not None and before == after


def _elements(shape: tuple[int | None, ...]) -> int | None:
    """The number of elements per image."""
    known = [size for size in shape[1:] if size is not None]
    return math.prod(known) if len(known) == len(shape) - 1 else None


def per_class(scores: Any, meaning: ScoreMeaning) -> Any:
    """One score per class, the highest for the best class.

    Args:
        scores: float array or tensor of shape (batch, classes), or (batch, 1) for a single score.
        meaning: what the scores mean.

    Returns:
        The scores themselves, or for a single score an array or tensor of shape (batch, 2).

    Example:
        >>> per_class(np.array([[0.25], [1.0]]), "probability").tolist()
        [[0.75, 0.25], [0.0, 1.0]]
    """
    if meaning not in _FIRST_CLASS:
        return scores
    join = keras.ops.concatenate if keras.ops.is_tensor(scores) else np.concatenate
    return join([_FIRST_CLASS[meaning](scores), scores], -1)


def best_class(scores: Any, meaning: ScoreMeaning) -> Any:
    """The index of the best class of each image; the first one of a tie.

    Args:
        scores: as for `per_class`.
        meaning: what the scores mean.

    Returns:
        An integer array or tensor of shape (batch,).

    Example:
        >>> best_class(np.array([[-3.0], [0.0], [0.1]]), "logit").tolist()
        [0, 0, 1]
    """
    argmax = keras.ops.argmax if keras.ops.is_tensor(scores) else np.argmax
    return argmax(per_class(scores, meaning), -1)


def classes_of(width: int, meaning: ScoreMeaning) -> int:
    """The number of classes that a row of scores distinguishes.

    Args:
        width: the number of scores per image.
        meaning: what the scores mean.

    Example:
        >>> classes_of(10, "classes"), classes_of(1, "logit")
        (10, 2)
    """
    return width + (meaning in _FIRST_CLASS)
