"""Which layers' outputs a student is to share with its teacher, where the recipe names none.

Layer by layer, an image has thousands of numbers to learn from, its class probabilities one or two; so a few hundred
images are enough to settle the weights (as block-wise reconstruction has it: Li et al. 2021,
https://arxiv.org/abs/2102.05426). The natural places are where the branches of a network join, behind the activation:
what went wrong in a block is seen there as a whole. A network without branches is compared at each kernel's activation.
"""

from collections.abc import Set as AbstractSet

import keras

from keras_qat.graph import Graph, Node, trace
from keras_qat.transform.rebuild import copy_layer, rebuild
from keras_qat.types import OpKind

_JOINS = frozenset({OpKind.ADD, OpKind.CONCAT})
_KERNELS = frozenset({OpKind.CONV, OpKind.DEPTHWISE_CONV})
_BEHIND = frozenset({OpKind.BATCH_NORM, OpKind.RELU, OpKind.ACTIVATION})


def common_features(teacher: keras.Model, student: keras.Model) -> tuple[str, ...]:
    """Names of layers in both models, called once, where branches join; of every kernel where none do.

    Args:
        teacher: the float model.
        student: made from it; layers keep their names.

    Example:
        >>> x = keras.Input((8, 8, 3))
        >>> y = keras.layers.Conv2D(3, 1, name="conv")(x)
        >>> y = keras.layers.ReLU(name="block_out")(keras.layers.Add(name="add")([x, y]))
        >>> model = keras.Model(x, keras.layers.Conv2D(2, 8, name="head")(y))
        >>> common_features(model, model)
        ('block_out',)
    """
    graph = trace(teacher).graph
    calls = [node.layer for node in graph.nodes]
    known = {layer.name for layer in teacher.layers} & {layer.name for layer in student.layers}

    def places(kinds: frozenset[OpKind]) -> tuple[str, ...]:
        ways = (_activated(graph, node, known) for node in graph.nodes if node.kind in kinds)
        ends = (way[-1] for way in ways if way)
        names = (node.layer for node in ends if calls.count(node.layer) == 1 and not _leaves(graph, node))
        return tuple(dict.fromkeys(names))

    return places(_JOINS) or places(_KERNELS)


def with_layers_of(teacher: keras.Model, student: keras.Model) -> keras.Model:
    """The teacher with the layers that a student was quantized with, so that a name is the same tensor in both.

    A nested model's layers, and those that a layer such as SeparableConv2D stands for, are layers of their own in a
    quantized model: of `Conv2D(activation="swish")` the name is the convolution's alone there.

    Args:
        teacher: the float model. It isn't touched.
        student: a model made from it.

    Returns:
        A flat copy, or the teacher itself where that has these layers already, or the student lacks them too.
    """
    found = trace(teacher)
    calls = [(node.layer, found.calls[node.name].operation) for node in found.graph.nodes]
    flat = {name for name, operation in calls if isinstance(operation, keras.layers.Layer)}
    if flat == {layer.name for layer in teacher.layers} or not flat <= {layer.name for layer in student.layers}:
        return teacher
    return rebuild(found, copy_layer, lambda _, tensor: tensor)


def _activated(graph: Graph, node: Node, known: AbstractSet[str]) -> list[Node]:
    """The node, and the batch norms and activations that only its output goes through; those of known layers."""
    way = [node]
    while (reader := graph.sole_consumer(way[-1].outputs[0])) is not None and reader.kind in _BEHIND:
        way.append(reader)
    return [node for node in way if node.layer in known]


def _leaves(graph: Graph, node: Node) -> bool:
    """Whether it is an output of the model, which the distillation compares anyway."""
    return node.outputs[0] in graph.outputs
