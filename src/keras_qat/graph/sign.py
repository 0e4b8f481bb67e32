"""Which tensors can never be negative, by what makes them: such a tensor may use all 256 steps of `uint8`."""

from keras_qat.graph.facts import Graph, Node
from keras_qat.types import OpKind

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
