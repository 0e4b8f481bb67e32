"""The fused kernels of an engine, and how numbers flow between them.

An engine runs a weighted layer with its batch norm or scale and activation as one kernel, and likewise an Add with its
activation. No Q/DQ pair may stand inside such a kernel: it would round in the middle and break the fusion.

Some operations only move numbers: zero padding, reshape, dropout at inference. The numbers before and behind them are
the same, so a pair may stand on either side. That is exact for padding too, since 0.0 is always on the grid.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from keras_qat.graph import OUTPUT, Edge, Graph, Node
from keras_qat.targets import Target
from keras_qat.types import OpKind

WEIGHTED = frozenset({OpKind.CONV, OpKind.DEPTHWISE_CONV, OpKind.CONV_TRANSPOSE, OpKind.DENSE})
"""Kinds of layers with a kernel."""

MOVES_NUMBERS = frozenset({OpKind.ZERO_PAD, OpKind.RESHAPE, OpKind.IDENTITY})
"""Kinds whose output holds the numbers of their input, and zeros."""

_FOLDS = frozenset({OpKind.BATCH_NORM, OpKind.SCALE})
"""Kinds that are affine per channel, and so fold into the kernel and bias of the layer before them."""

_TAKES_ACTIVATION = WEIGHTED | {OpKind.BATCH_NORM, OpKind.ADD, OpKind.MULTIPLY}
"""Kinds whose kernel may end in the activation after them."""


@dataclass(frozen=True)
class Group:
    """Nodes that run as one kernel.

    Args:
        root: the first node, which does the main work of the kernel.
        members: all nodes in topological order, the root first.
    """

    root: Node
    members: tuple[Node, ...]

    def __str__(self) -> str:
        """The kinds of its nodes, as in `conv + batch norm + relu`."""
        return " + ".join(node.kind.value for node in self.members)


def fused_groups(graph: Graph, target: Target) -> Mapping[str, Group]:
    """The kernel in which each node runs.

    Args:
        graph: the float model's facts.
        target: the engine that fuses.

    Returns:
        The group of each node, by node name; all nodes of a kernel have the same `Group` object.

    Example:
        >>> from keras_qat.targets import find_target
        >>> image = Node("image", OpKind.INPUT, "image", (), ("image",))
        >>> conv = Node("conv", OpKind.CONV, "conv", ("image",), ("conv",))
        >>> relu = Node("relu", OpKind.RELU, "relu", ("conv",), ("relu",))
        >>> groups = fused_groups(Graph((image, conv, relu), ("relu",)), find_target("tensorrt"))
        >>> str(groups["relu"])
        'conv + relu'
    """
    groups: dict[str, Group] = {}
    for node in graph.nodes:
        if node.name not in groups:
            group = Group(node, _members(graph, target, node))
            groups.update({member.name: group for member in group.members})
    return groups


def _members(graph: Graph, target: Target, root: Node) -> tuple[Node, ...]:
    """The nodes that run in the kernel of `root`, which comes first."""
    members: tuple[Node, ...] = (root,)
    if root.activation is not None or len(root.outputs) != 1:
        return members
    for kinds, fused in ((WEIGHTED, _FOLDS), (_TAKES_ACTIVATION, target.fused_activations)):
        after = graph.sole_consumer(members[-1].outputs[0]) if root.kind in kinds else None
        if after is not None and after.kind in fused:
            members = (*members, after)
    return members


class Flow:
    """A graph with a target's kernels, and how its numbers flow.

    Args:
        graph: the float model's facts.
        target: the engine that fuses.
    """

    def __init__(self, graph: Graph, target: Target) -> None:
        self.graph = graph
        self.target = target
        self.groups = fused_groups(graph, target)

    def internal(self, edge: Edge) -> bool:
        """Whether both ends of an edge run in one kernel."""
        producer = self.graph.producer(edge.tensor)
        return edge.consumer != OUTPUT and self.groups[producer.name] is self.groups[edge.consumer]

    def moves(self, name: str) -> bool:
        """Whether a node only moves numbers, by its name; `OUTPUT` does not."""
        return name != OUTPUT and self.graph.by_name[name].kind in MOVES_NUMBERS

    def before(self, edge: Edge) -> Edge | None:
        """The edge with the same numbers one step upstream; `None` if the producer computes new ones."""
        producer = self.graph.producer(edge.tensor)
        return Edge(producer.inputs[0], producer.name, 0) if producer.kind in MOVES_NUMBERS else None

    def behind(self, edge: Edge) -> tuple[Edge, ...]:
        """The edges with the same numbers one step downstream; none if the consumer computes new ones."""
        if not self.moves(edge.consumer):
            return ()
        outputs = self.graph.by_name[edge.consumer].outputs
        return tuple(reader for tensor in outputs for reader in self.graph.consumers(tensor))

    def readers(self, edge: Edge) -> tuple[Edge, ...]:
        """The edge itself, and all edges downstream that carry the same numbers."""
        return (edge, *(reader for following in self.behind(edge) for reader in self.readers(following)))

    def upstream(self, edge: Edge) -> tuple[Edge, ...]:
        """The edges upstream that carry the same numbers, the nearest first."""
        before = self.before(edge)
        return () if before is None else (before, *self.upstream(before))

    def source(self, tensor: str) -> Group:
        """The kernel that computed the numbers of a tensor, before any operations that only move them."""
        return self.makers(tensor)[-1]

    def makers(self, tensor: str) -> tuple[Group, ...]:
        """The operations that moved the numbers of a tensor, the nearest first, then the kernel that computed them."""
        producer = self.graph.producer(tensor)
        group = self.groups[producer.name]
        return (group, *self.makers(producer.inputs[0])) if producer.kind in MOVES_NUMBERS else (group,)

    def leaving(self, node: Node) -> tuple[Edge, ...]:
        """The edges on which the result of a node's kernel is read."""
        outputs = self.groups[node.name].members[-1].outputs
        return tuple(edge for tensor in outputs for edge in self.graph.consumers(tensor))

    def fused_branch(self, add: Node) -> int | None:
        """The input of a residual Add that the engine adds inside a convolution's kernel: the last that qualifies."""
        for index in reversed(range(len(add.inputs))):
            tensor, reader = self._past_identities(add.inputs[index], add)
            group = self.groups[self.graph.producer(tensor).name]
            convolves = group.root.kind in {OpKind.CONV, OpKind.DEPTHWISE_CONV} and group.root.activation is None
            activated = group.members[-1].kind in self.target.fused_activations
            if convolves and not activated and self.graph.sole_consumer(tensor) is reader:
                return index
        return None

    def _past_identities(self, tensor: str, reader: Node) -> tuple[str, Node]:
        """The tensor and its reader before any dropout in between, which is absent from the exported file."""
        producer = self.graph.producer(tensor)
        if producer.kind is OpKind.IDENTITY and self.graph.sole_consumer(tensor) is reader:
            return self._past_identities(producer.inputs[0], producer)
        return tensor, reader
