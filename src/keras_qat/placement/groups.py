"""Which nodes an engine runs as one kernel: weighted layer + batch norm or scale + activation, or Add + activation.

Inside such a group no Q/DQ pair may stand: it would round in the middle of a kernel and break the fusion.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from keras_qat.graph import Graph, Node
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
