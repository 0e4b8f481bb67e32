"""The graph of a model as frozen facts: nodes that compute and tensors that flow between them.

A `Graph` is independent of Keras: placement reads it, and tests build it by hand. A node is named after the Keras layer
that it calls (`"shared#2"` for the second call of a shared layer), a tensor after the node that makes it
(`"conv1_relu"`; `"split:1"` for a second output).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from keras_qat.types import OpKind

OUTPUT = "/output"
"""The consumer of an edge that leaves the model. No layer can have this name, since Keras forbids the slash."""

_NON_NEGATIVE_ACTIVATIONS = frozenset({"relu", "relu6", "sigmoid", "hard_sigmoid", "softmax", "softplus"})

_ENDS_IN_ACTIVATION = frozenset(
    {OpKind.CONV, OpKind.DEPTHWISE_CONV, OpKind.CONV_TRANSPOSE, OpKind.DENSE, OpKind.ACTIVATION}
)
"""Kinds whose activation is the last thing they compute; a custom layer may go on after its activation."""

_KEEPS_SIGN = frozenset(
    {
        OpKind.ADD,
        OpKind.MULTIPLY,
        OpKind.CONCAT,
        OpKind.MAX_POOL,
        OpKind.AVERAGE_POOL,
        OpKind.ZERO_PAD,
        OpKind.RESIZE,
        OpKind.RESHAPE,
        OpKind.IDENTITY,
    }
)
"""Kinds whose output is non-negative if all their inputs are."""


@dataclass(frozen=True)
class Node:
    """One call of a layer.

    Args:
        name: unique in the graph.
        kind: what it computes.
        layer: name of the Keras layer that is called.
        inputs: the names of the tensors it reads.
        outputs: the names of the tensors it makes.
        activation: name of the layer's own activation function, as in `Conv2D(activation="relu")`; `None` for none.
        layer_type: the class of the layer; `None` in a graph built by hand.
        floating: whether it makes floating-point numbers; integers and truth values are never quantized.
    """

    name: str
    kind: OpKind
    layer: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    activation: str | None = None
    layer_type: type | None = None
    floating: bool = True


@dataclass(frozen=True)
class Edge:
    """A tensor as one input of one node.

    Args:
        tensor: name of the tensor.
        consumer: name of the node that reads it, or `OUTPUT` where it leaves the model.
        index: which input of the consumer it is, counted from 0.
    """

    tensor: str
    consumer: str
    index: int


@dataclass(frozen=True)
class Graph:
    """The nodes and outputs of a model.

    Args:
        nodes: in topological order.
        outputs: names of the tensors that leave the model, in the order of the model's outputs.

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
        """Every edge, in topological order of the consumers; the edges that leave the model come last."""
        inner = [Edge(t, node.name, i) for node in self.nodes for i, t in enumerate(node.inputs)]
        return (*inner, *(Edge(t, OUTPUT, i) for i, t in enumerate(self.outputs)))

    @cached_property
    def _producers(self) -> Mapping[str, Node]:
        return {tensor: node for node in self.nodes for tensor in node.outputs}

    @cached_property
    def _consumers(self) -> Mapping[str, tuple[Edge, ...]]:
        edges_of: dict[str, list[Edge]] = {tensor: [] for tensor in self._producers}
        for edge in self.edges:
            edges_of[edge.tensor].append(edge)
        return {tensor: tuple(edges) for tensor, edges in edges_of.items()}

    def producer(self, tensor: str) -> Node:
        """The node that makes `tensor`."""
        return self._producers[tensor]

    def consumers(self, tensor: str) -> tuple[Edge, ...]:
        """The edges on which `tensor` is read."""
        return self._consumers[tensor]

    def sole_consumer(self, tensor: str) -> Node | None:
        """The node that reads `tensor`; `None` unless `tensor` is read exactly once, and by a node."""
        edges = self.consumers(tensor)
        if len(edges) != 1 or edges[0].consumer == OUTPUT:
            return None
        return self.by_name[edges[0].consumer]


def non_negative_tensors(graph: Graph) -> frozenset[str]:
    """The tensors that are never negative, whatever the input: these can use all 256 steps of `uint8`.

    Args:
        graph: the facts of a model.

    Returns:
        The names of the tensors.

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
