"""The tensors that carry a pair: in which integers, and whose range they take.

Where an engine needs one scale on both sides of an operation (max-pool, concatenation), its quantized inputs and output
share a range. It is named after the first of them, and holds the numbers of all that are not made of others of them
alone.
"""

from collections.abc import Mapping

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
    names = tuple(dict.fromkeys(edge.tensor for edge in edges if edge.quantized))
    found = []
    made_of = {name: _made_of(flow, name, quantized) for name in names}
    for name, group in _groups(names, made_of).items():
        first, *others = (m for m in group if not made_of[m] or _reads_float(flow, m, quantized))
        # One scale and one zero-point: unsigned only where nobody needs the sign.
        spec = flow.target.activation_spec(non_negative=all(member in non_negative for member in group))
        found.append(QuantizedTensor(name, spec, first, tuple(others)))
    return tuple(found)


def _made_of(flow: Flow, tensor: str, quantized: frozenset[Edge]) -> tuple[str, ...]:
    """The quantized tensors that share a scale with this one upstream.

    An input that stays float has no scale to share.
    """
    node = flow.graph.producer(tensor)
    if node.kind not in flow.target.shares_range and node.kind not in MOVES_NUMBERS:
        return ()
    found: list[str] = []
    for index, source in enumerate(node.inputs):
        if Edge(source, node.name, index) in quantized:
            found.append(source)
        else:
            found += _made_of(flow, source, quantized)
    return tuple(found)


def _reads_float(flow: Flow, tensor: str, quantized: frozenset[Edge]) -> bool:
    """Whether a tensor is made of others that stay float too: their numbers are seen in it alone."""
    node = flow.graph.producer(tensor)
    if node.kind not in flow.target.shares_range and node.kind not in MOVES_NUMBERS:
        return True
    edges = (Edge(source, node.name, index) for index, source in enumerate(node.inputs))
    return any(edge not in quantized and _reads_float(flow, edge.tensor, quantized) for edge in edges)


def _groups(names: tuple[str, ...], made_of: Mapping[str, tuple[str, ...]]) -> Mapping[str, tuple[str, ...]]:
    """The tensors that share one range with each tensor, itself included, in the order of the graph."""
    together = {name: {name} for name in names}
    for name, sources in made_of.items():
        joined = set().union(together[name], *(together[source] for source in sources))
        together.update(dict.fromkeys(joined, joined))
    return {name: tuple(member for member in names if member in together[name]) for name in names}
