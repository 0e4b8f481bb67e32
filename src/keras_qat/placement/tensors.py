"""The tensors that carry a pair: in which integers, and whose range they take."""

from keras_qat.graph import Edge, non_negative_tensors
from keras_qat.placement.flow import MOVES_NUMBERS, Flow
from keras_qat.types import EdgeDecision, QuantizedTensor


def quantized_tensors(flow: Flow, edges: tuple[EdgeDecision, ...]) -> tuple[QuantizedTensor, ...]:
    """One value for each tensor that is quantized on some edge.

    Args:
        flow: the graph with the target's kernels.
        edges: the decisions.
    """
    non_negative = non_negative_tensors(flow.graph)
    quantized = frozenset(Edge(e.tensor, e.consumer, e.index) for e in edges if e.quantized)
    return tuple(
        QuantizedTensor(
            name,
            flow.target.activation_spec(non_negative=name in non_negative),
            _range_owner(flow, name, quantized),
        )
        for name in dict.fromkeys(edge.tensor for edge in edges if edge.quantized)
    )


def _range_owner(flow: Flow, tensor: str, quantized: frozenset[Edge]) -> str:
    """The tensor whose range this one takes, back through operations that need one scale on both sides.

    An operation whose input stays float has no scale there to share.
    """
    owner = tensor
    node = flow.graph.producer(tensor)
    while node.kind in flow.target.shares_range or node.kind in MOVES_NUMBERS:
        source = node.inputs[0]
        if Edge(source, node.name, 0) in quantized:
            owner = source
        node = flow.graph.producer(source)
    return owner
