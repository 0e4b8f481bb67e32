"""Which nodes an engine runs as one kernel: weighted layer + batch norm or scale + activation, or Add + activation.

Inside such a group no Q/DQ pair may stand: it would round in the middle of a kernel and break the fusion.

How numbers flow between the kernels of an engine: which edges lie inside a kernel, and what only moves numbers.

Operations that only move numbers (zero padding, reshape, dropout at inference) are seen through. That is exact, since
0.0 is always on the grid.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from keras_qat.graph import OUTPUT, Edge, Graph, Node
from keras_qat.targets import Target
from keras_qat.types import OpKind

WEIGHTED = frozenset({OpKind.CONV, OpKind.DEPTHWISE_CONV, OpKind.DENSE})

_FOLDS = frozenset({OpKind.BATCH_NORM, OpKind.SCALE})
"""Per channel affine, so that it goes into the kernel and bias before it."""

_TAKES_ACTIVATION = WEIGHTED | {OpKind.BATCH_NORM, OpKind.ADD, OpKind.MULTIPLY}


@dataclass(frozen=True)
class Group:
    """Nodes that run as one kernel.

    Args:
        root: the node that the kernel is named after.
        members: all its nodes, the root first, in order of flow.
    """

    root: Node
    members: tuple[Node, ...]

    @property
    def output(self) -> str:
        """The tensor that leaves the group."""
        return self.members[-1].outputs[0]

    def __str__(self) -> str:
        """The kinds of its members, as in `conv + batch norm + relu`."""
        return " + ".join(node.kind.value for node in self.members)


def fused_groups(graph: Graph, target: Target) -> Mapping[str, Group]:
    """The group of each node, by node name.

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
            group = Group(node, (node, *_followers(graph, target, node)))
            groups.update({member.name: group for member in group.members})
    return groups


def _followers(graph: Graph, target: Target, root: Node) -> tuple[Node, ...]:
    """The nodes that run inside the kernel of `root`, after it."""
    found: tuple[Node, ...] = ()
    last = root
    if root.activation is not None or len(root.outputs) != 1:
        return found
    if root.kind in WEIGHTED:
        after = graph.sole_consumer(last.outputs[0])
        if after is not None and after.kind in _FOLDS:
            found, last = (after,), after
    if root.kind in _TAKES_ACTIVATION:
        after = graph.sole_consumer(last.outputs[0])
        if after is not None and after.kind in target.fused_activations:
            found = (*found, after)
    return found


MOVES_NUMBERS = frozenset({OpKind.ZERO_PAD, OpKind.RESHAPE, OpKind.IDENTITY})


class Flow:
    """A graph with a target's kernels.

    Args:
        graph: the float model's facts.
        target: the engine that fuses.
    """

    def __init__(self, graph: Graph, target: Target) -> None:
        self.graph = graph
        self.target = target
        self.groups = fused_groups(graph, target)

    def internal(self, edge: Edge) -> bool:
        """Whether both ends run in one kernel."""
        producer = self.graph.producer(edge.tensor)
        return edge.consumer != OUTPUT and self.groups[producer.name] is self.groups[edge.consumer]

    def moves(self, name: str) -> bool:
        """Whether a consumer only moves numbers."""
        return name != OUTPUT and self.graph.by_name[name].kind in MOVES_NUMBERS

    def before(self, edge: Edge) -> Edge | None:
        """The edge with the same numbers one step upstream, where what makes them only moves numbers."""
        producer = self.graph.producer(edge.tensor)
        return Edge(producer.inputs[0], producer.name, 0) if producer.kind in MOVES_NUMBERS else None

    def behind(self, edge: Edge) -> tuple[Edge, ...]:
        """The edges with the same numbers one step downstream, where what reads them only moves numbers."""
        if not self.moves(edge.consumer):
            return ()
        return self.graph.consumers(self.graph.by_name[edge.consumer].outputs[0])

    def readers(self, edge: Edge) -> tuple[Edge, ...]:
        """The edge and all edges behind it: where its numbers are read, and on the way there."""
        return (edge, *(reader for following in self.behind(edge) for reader in self.readers(following)))

    def upstream(self, edge: Edge) -> tuple[Edge, ...]:
        """The edges before this one that carry the same numbers, the nearest first."""
        before = self.before(edge)
        return () if before is None else (before, *self.upstream(before))

    def source(self, tensor: str) -> Group:
        """The kernel whose result `tensor` carries, seen through operations that only move numbers."""
        return self.makers(tensor)[-1]

    def makers(self, tensor: str) -> tuple[Group, ...]:
        """What `tensor` comes from: operations that only move numbers, the nearest first, then the kernel."""
        producer = self.graph.producer(tensor)
        group = self.groups[producer.name]
        return (group, *self.makers(producer.inputs[0])) if producer.kind in MOVES_NUMBERS else (group,)

    def leaving(self, node: Node) -> tuple[Edge, ...]:
        """The edges on which the result of the node's kernel leaves it."""
        outputs = self.groups[node.name].members[-1].outputs
        return tuple(edge for tensor in outputs for edge in self.graph.consumers(tensor))

    def fused_branch(self, add: Node) -> int | None:
        """Which input of a residual Add the engine adds inside a convolution: the last that qualifies."""
        for index in reversed(range(len(add.inputs))):
            tensor, reader = self._past_identities(add.inputs[index], add)
            group = self.groups[self.graph.producer(tensor).name]
            convolves = group.root.kind in {OpKind.CONV, OpKind.DEPTHWISE_CONV} and group.root.activation is None
            activated = group.members[-1].kind in self.target.fused_activations
            if convolves and not activated and self.graph.sole_consumer(tensor) is reader:
                return index
        return None

    def _past_identities(self, tensor: str, reader: Node) -> tuple[str, Node]:
        """The tensor and its reader before all dropout between: the file has none, so the kernel sees past it."""
        producer = self.graph.producer(tensor)
        if producer.kind is OpKind.IDENTITY and self.graph.sole_consumer(tensor) is reader:
            return self._past_identities(producer.inputs[0], producer)
        return tensor, reader
