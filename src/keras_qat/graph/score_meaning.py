"""What the scores of a model mean, as its last layer shows."""

import math
from collections.abc import Mapping

from keras.src.ops import nn  # the operations behind `keras.ops` calls in a graph

from keras_qat.graph.facts import Node
from keras_qat.graph.trace import Trace
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
        >>> from keras_qat.graph.trace import trace
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
