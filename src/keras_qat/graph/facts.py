"""The graph of a model as frozen facts: nodes that compute and tensors that flow between them.

A `Graph` knows nothing of Keras: placement reads it, tests build it by hand. A tensor is named after the node that
makes it (`"conv1_relu"`; `"split:1"` for a second output), a node after the Keras layer it calls (`"shared#2"` for the
second call of a shared layer).

What a model's inputs are called.

Which tensors can never be negative, by what makes them: such a tensor may use all 256 steps of `uint8`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from keras_qat.types import OpKind

OUTPUT = "/output"
"""The consumer of an edge that leaves the model; no layer has this name, since Keras forbids the slash."""


@dataclass(frozen=True)
class Node:
    """One call of one layer.

    Args:
        name: unique in the graph.
        kind: what it computes.
        layer: name of the Keras layer that is called.
        inputs: the names of the tensors it reads.
        outputs: the names of the tensors it makes.
        activation: name of the layer's own activation function, as in `Conv2D(activation="relu")`.
        layer_type: the class of that layer; `None` in a graph made by hand.
    """

    name: str
    kind: OpKind
    layer: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    activation: str | None = None
    layer_type: type | None = None


@dataclass(frozen=True)
class Edge:
    """A tensor on its way into one input of one node.

    Args:
        tensor: name of the tensor.
        consumer: name of the node, or `OUTPUT`.
        index: which input of the consumer.
    """

    tensor: str
    consumer: str
    index: int


@dataclass(frozen=True)
class Graph:
    """The nodes of a model in topological order, and its outputs.

    Example:
        >>> graph = Graph(
        ...     nodes=(
        ...         Node("image", OpKind.INPUT, "image", (), ("image",)),
        ...         Node("conv", OpKind.CONV, "conv", ("image",), ("conv",)),
        ...     ),
        ...     outputs=("conv",),
        ... )
        >>> graph.producer("conv").kind.value, graph.consumers("conv")
        ('conv', (Edge(tensor='conv', consumer='/output', index=0),))
    """

    nodes: tuple[Node, ...]
    outputs: tuple[str, ...]

    @cached_property
    def by_name(self) -> Mapping[str, Node]:
        """Each node by its name."""
        return {node.name: node for node in self.nodes}

    @cached_property
    def edges(self) -> tuple[Edge, ...]:
        """Every edge, in topological order of the consumers; those that leave the model come last."""
        inner = [Edge(t, node.name, i) for node in self.nodes for i, t in enumerate(node.inputs)]
        return (*inner, *(Edge(t, OUTPUT, i) for i, t in enumerate(self.outputs)))

    @cached_property
    def _producers(self) -> Mapping[str, Node]:
        return {tensor: node for node in self.nodes for tensor in node.outputs}

    @cached_property
    def _consumers(self) -> Mapping[str, tuple[Edge, ...]]:
        found: dict[str, list[Edge]] = {tensor: [] for tensor in self._producers}
        for edge in self.edges:
            found[edge.tensor].append(edge)
        return {tensor: tuple(edges) for tensor, edges in found.items()}

    def producer(self, tensor: str) -> Node:
        """The node that makes `tensor`."""
        return self._producers[tensor]

    def consumers(self, tensor: str) -> tuple[Edge, ...]:
        """The edges on which `tensor` is read."""
        return self._consumers[tensor]

    def sole_consumer(self, tensor: str) -> Node | None:
        """The one node that reads `tensor`, or `None` where there are several, or where it leaves the model."""
        edges = self.consumers(tensor)
        if len(edges) != 1 or edges[0].consumer == OUTPUT:
            return None
        return self.by_name[edges[0].consumer]


def input_names(model: Any) -> tuple[str, ...]:
    """The names of a model's inputs, in the order of `model.inputs`: those of their layers, as in the graph.

    The tensor of an input that wasn't named has a name of its own, such as "keras_tensor_7", which nobody knows.

    Args:
        model: Functional or Sequential, built.

    Example:
        >>> import keras
        >>> x = keras.Input((4,), name="image")
        >>> input_names(keras.Model(x, keras.layers.ReLU()(x)))
        ('image',)
    """
    return tuple(tensor._keras_history.operation.name for tensor in model.inputs)  # noqa: SLF001


_NON_NEGATIVE_ACTIVATIONS = frozenset({"relu", "relu6", "sigmoid", "hard_sigmoid", "softmax", "softplus"})

_ENDS_IN_ACTIVATION = frozenset({OpKind.CONV, OpKind.DEPTHWISE_CONV, OpKind.DENSE, OpKind.ACTIVATION})
"""Their activation is the last thing they compute; a custom layer may do more behind it."""

_KEEPS_SIGN = frozenset(
    {
        OpKind.ADD,
        OpKind.MULTIPLY,
        OpKind.CONCAT,
        OpKind.MAX_POOL,
        OpKind.AVERAGE_POOL,
        OpKind.ZERO_PAD,
        OpKind.RESHAPE,
        OpKind.IDENTITY,
    }
)
"""Made of non-negative inputs only, their output is non-negative too."""


def non_negative_tensors(graph: Graph) -> frozenset[str]:
    """The names of the tensors that can't be negative whatever the input is.

    Example:
        >>> relu = Node("relu", OpKind.RELU, "relu", ("image",), ("relu",))
        >>> image = Node("image", OpKind.INPUT, "image", (), ("image",))
        >>> sorted(non_negative_tensors(Graph((image, relu), ("relu",))))
        ['relu']
    """
    known: set[str] = set()
    for node in graph.nodes:
        if _is_non_negative(node, known):
            known.update(node.outputs)
    return frozenset(known)


def _is_non_negative(node: Node, known: set[str]) -> bool:
    if node.kind is OpKind.RELU or (node.kind in _ENDS_IN_ACTIVATION and node.activation in _NON_NEGATIVE_ACTIVATIONS):
        return True
    return node.kind in _KEEPS_SIGN and all(tensor in known for tensor in node.inputs)
