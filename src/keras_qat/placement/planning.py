"""The tensors that carry a pair: in which integers, and whose range they take.

Where an engine needs one scale on both sides of an operation (max-pool, concatenation), its quantized inputs and output
share a range. It is named after the first of them, and holds the numbers of all that are not made of others of them
alone.

Which layers' kernels are quantized, in how many bits, and why.

Decide where the Q/DQ pairs go: (graph, target, overrides) → `Placement`, with a reason for every edge.
"""

from collections.abc import Mapping

from keras_qat.errors import UserError
from keras_qat.graph import Edge, Graph, Node, non_negative_tensors
from keras_qat.placement.edges import EdgePlanner, ask_function
from keras_qat.placement.flow import MOVES_NUMBERS, WEIGHTED, Flow
from keras_qat.placement.overrides import LayerRequests, Mode, Overrides, edge_request, read_requests, weight_request
from keras_qat.placement.rules import Rule
from keras_qat.targets import Target, find_target
from keras_qat.types import EdgeDecision, Kernel, OpKind, Placement, QuantizedTensor, QuantSpec, WeightDecision


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


_CHANNEL_AXIS = {OpKind.CONV: 3, OpKind.DEPTHWISE_CONV: 2, OpKind.DENSE: 1}
"""Output-channel axis of the kernel in the Keras layout: (h, w, in, out), (h, w, in, multiplier), (in, out)."""


def decide_weights(
    flow: Flow, layers: Mapping[str, LayerRequests], mode: Mode, weight_bits: int
) -> tuple[WeightDecision, ...]:
    """A decision for each layer with a kernel, shared layers once.

    Args:
        flow: the graph with the target's kernels.
        layers: what the rules ask of each node.
        mode: whether the target's table decides where no rule speaks.
        weight_bits: width of the integers where no rule says another.
    """
    weighted = {node.layer: node for node in flow.graph.nodes if node.kind in WEIGHTED}
    return tuple(_decide(flow, layers, mode, weight_bits, node) for node in weighted.values())


def _decide(
    flow: Flow, layers: Mapping[str, LayerRequests], mode: Mode, weight_bits: int, node: Node
) -> WeightDecision:
    rule = flow.target.rule(node.kind)
    request = weight_request(flow.graph, layers, node.layer, "weights")
    bits = weight_request(flow.graph, layers, node.layer, "weight_bits")
    by_table = f"{node.kind} weights: {rule.because}" if rule.weights else f"{node.kind}: {rule.because}"
    if request is None:
        quantized = mode == "full" and rule.weights
        reason = by_table if mode == "full" else "partial quantization: no rule asks for these weights"
    elif request.value == "target":
        quantized, reason = rule.weights, f"{request.reason}; {by_table}"
    else:
        quantized, reason = request.value, request.reason
    if not quantized:
        return WeightDecision(node.layer, None, reason)
    width = weight_bits if bits is None else bits.value
    if bits is not None and bits != request:
        reason = f"{reason}; {bits.reason}"
    return WeightDecision(node.layer, QuantSpec(bits=width, narrow=True, axis=_CHANNEL_AXIS[node.kind]), reason)


def require_weights(flow: Flow, rules: tuple[Rule, ...], weights: tuple[WeightDecision, ...]) -> None:
    """Refuse a rule about the width of weights that all stay float.

    Raises:
        UserError: such a rule.
    """
    floats = {weight.layer for weight in weights if weight.spec is None}
    for rank, rule in enumerate(rules):
        if rule.weight_bits is None:
            continue
        layers = {node.layer for node in flow.graph.nodes if node.kind in WEIGHTED and rule.selects(node)}
        if layers and layers <= floats:
            raise UserError(
                f"The weights of {min(layers)!r} stay float, so they have no bits. Received: rule {rank + 1}, {rule}. "
                "Add weights=True to that rule."
            )


def plan(graph: Graph, target: str | Target, *, weight_bits: int = 8, overrides: Overrides | None = None) -> Placement:
    """Decide which edges and weights are quantized.

    Args:
        graph: the float model's facts, from `keras_qat.graph.trace(model).graph`.
        target: name of an engine (`"tensorrt"`, `"onnxruntime"`), or a table of your own.
        weight_bits: width of the weights, 2 to 8. Fewer than 8 are simulated; the file still stores int8.
        overrides: what you want otherwise than the target's table.

    Returns:
        The placement: every edge and every weighted layer with a decision and a reason.

    Raises:
        UserError: the target is unknown; a rule matches no layer, or asks for what can't be.
    """
    overrides = Overrides() if overrides is None else overrides
    flow = Flow(graph, find_target(target))
    layers = read_requests(flow, overrides.rules)
    weights = decide_weights(flow, layers, overrides.mode, weight_bits)
    require_weights(flow, overrides.rules, weights)
    float_layers = frozenset(weight.layer for weight in weights if weight.spec is None)

    asked = {edge: request for edge in graph.edges if (request := edge_request(flow, layers, edge)) is not None}
    edges = EdgePlanner(flow, layers, asked, overrides.mode, float_layers).decide()
    if overrides.edges is not None:
        asked |= ask_function(flow, overrides.edges, edges, rank=len(overrides.rules))
        edges = EdgePlanner(flow, layers, asked, overrides.mode, float_layers).decide()
    return Placement(
        target=flow.target.name,
        tensors=quantized_tensors(flow, edges),
        edges=edges,
        weights=weights,
        kernels=_kernels(flow),
    )


def _kernels(flow: Flow) -> tuple[Kernel, ...]:
    groups = {id(group): group for group in flow.groups.values()}
    return tuple(
        Kernel(tuple(node.name for node in group.members), tuple(node.kind for node in group.members))
        for group in groups.values()
    )
