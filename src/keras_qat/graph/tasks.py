"""What each output of a model says: read from its shape and from the layer that computes it.

    (batch, classes)      softmax                            classification
    (batch, 1)            sigmoid                            classification into two classes
    (batch, …, classes)   softmax along the last axis        segmentation
    (batch, …, 1)         sigmoid                            segmentation into two classes
    any other                                                regression

A linear last layer makes logits or numbers of any other meaning, and several sigmoids are independent of each other.
Such an output is read as scores of classes only if the labels are numbers of classes. An output of the shape of an
input is a reconstruction of that input, unless a softmax ends it.
"""

import math
from collections.abc import Mapping

import keras
from keras.src.ops import nn  # the operations behind `keras.ops` calls in a graph

from keras_qat.graph.facts import Node
from keras_qat.graph.read import Trace
from keras_qat.types import OpKind, OutputTask, ScoreMeaning, TaskKind

_AXES = 2
"""Axes of an array of scores of whole inputs: (batch, classes)."""

_SEEN_THROUGH = frozenset({OpKind.RESHAPE, OpKind.IDENTITY, OpKind.FAKE_QUANTIZE, OpKind.AVERAGE_POOL})
"""Kinds behind the last layer that keep the threshold of a score: a mean of probabilities, or of logits, is one again.

A RESHAPE may be a slice or a crop out of several scores, so only one that keeps all elements is seen through.
"""

_LAST_LAYERS = frozenset({OpKind.CONV, OpKind.CONV_TRANSPOSE, OpKind.DENSE, OpKind.ACTIVATION})
"""Kinds of layers that can make a score; their activation is the last thing they compute."""

_MEANINGS: Mapping[str | None, ScoreMeaning] = {"sigmoid": "probability", None: "logit"}
"""The meaning of a single score, by the activation of the last layer."""

_OPERATIONS: Mapping[type, str] = {
    nn.Sigmoid: "sigmoid",
    nn.Softmax: "softmax",
    nn.LogSoftmax: "log_softmax",
    keras.layers.Softmax: "softmax",
}
"""Activations that are calls of `keras.ops`, or layers, which have no activation function to name."""

_ONE_OF_ALL = frozenset({"softmax", "log_softmax"})
"""Activations that make the scores of classes of which exactly one is right."""

_UNKNOWN = "unknown"
"""Stands for the end of a model that is no activation of a last layer."""


def read_tasks(model: Trace, *, class_labels: bool = False) -> tuple[OutputTask, ...]:
    """What each output of a model says.

    Args:
        model: the traced model.
        class_labels: whether the labels that come with the data are numbers of classes, which makes logits of a linear
            last layer.

    Returns:
        One task for each output, in the flattened order of `keras.tree.flatten(model.outputs)`.

    Example:
        >>> from keras_qat.graph import trace
        >>> x = keras.Input((8, 8, 3))
        >>> mask = keras.layers.Conv2D(4, 1, activation="softmax", name="mask")(x)
        >>> box = keras.layers.Dense(4, name="box")(keras.layers.Flatten()(x))
        >>> [(task.kind, task.scores) for task in read_tasks(trace(keras.Model(x, [mask, box])))]
        [('segmentation', 'classes'), ('regression', None)]
        >>> read_tasks(trace(keras.Model(x, box)), class_labels=True)[0].kind
        'classification'
    """
    return tuple(_read_task(model, tensor, class_labels=class_labels) for tensor in model.graph.outputs)


def as_task(model: Trace, output: int, kind: TaskKind) -> OutputTask | None:
    """The task of an output that the user names, with the meaning of its scores.

    Args:
        model: the traced model.
        output: index of the output, in flattened order.
        kind: what the user says that it is.

    Returns:
        The task; `None` if the output can't be that: it has no axis of scores, or the wrong number of axes.

    Example:
        >>> from keras_qat.graph import trace
        >>> logits = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        >>> as_task(trace(logits), 0, "classification").scores, as_task(trace(logits), 0, "segmentation")
        ('classes', None)
    """
    tensor = model.graph.outputs[output]
    if kind == "regression":
        return OutputTask(tensor, kind)
    scores = _scores(model, tensor, class_labels=True)
    fits = (len(model.shape(tensor)) == _AXES) == (kind == "classification")
    return OutputTask(tensor, kind, scores) if fits and scores is not None else None


def _read_task(model: Trace, tensor: str, *, class_labels: bool) -> OutputTask:
    scores = _scores(model, tensor, class_labels=class_labels)
    if scores is None or (not class_labels and _is_reconstruction(model, tensor)):
        return OutputTask(tensor, "regression")
    return OutputTask(tensor, "classification" if len(model.shape(tensor)) == _AXES else "segmentation", scores)


def _scores(model: Trace, tensor: str, *, class_labels: bool) -> ScoreMeaning | None:
    """What the numbers along the last axis mean as scores of classes; `None` if they aren't any."""
    shape = model.shape(tensor)
    if len(shape) < _AXES or shape[-1] is None:
        return None
    activation = _activation(_last_layer(model, tensor))
    if shape[-1] > 1:
        return "classes" if class_labels or activation in _ONE_OF_ALL else None
    return _MEANINGS.get(activation) if class_labels or activation == "sigmoid" else None


def _is_reconstruction(model: Trace, tensor: str) -> bool:
    """Whether an output has the shape of an input of more than one axis, and no softmax at its end."""
    shape = model.shape(tensor)
    inputs = [model.shape(ref.name) for ref in keras.tree.flatten(model.inputs)]
    same = len(shape) > _AXES and shape in inputs
    return same and _activation(_last_layer(model, tensor)) not in _ONE_OF_ALL


def output_activation(model: Trace, tensor: str) -> str | None:
    """The name of the activation that an output ends with.

    Args:
        model: the traced model.
        tensor: name of the output.

    Returns:
        The name, such as "softmax"; `None` if a layer without an activation computes it, and "unknown" for anything
        else, such as a mean of several softmaxes.

    Example:
        >>> from keras_qat.graph import trace
        >>> model = trace(keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "softmax")]))
        >>> output_activation(model, model.graph.outputs[0])
        'softmax'
    """
    return _activation(_last_layer(model, tensor))


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
    return "classes" if shape[1] > 1 else _MEANINGS.get(_activation(_last_layer(model, outputs[0])))


def _activation(node: Node) -> str | None:
    """The name of the activation that a last layer ends with, `None` for a linear one."""
    if node.kind not in _LAST_LAYERS:
        return _UNKNOWN
    activation = _OPERATIONS.get(node.layer_type, node.activation) if node.layer_type else node.activation
    # An activation without a name is an operation that is not in the table.
    return _UNKNOWN if node.kind is OpKind.ACTIVATION and activation is None else activation


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
