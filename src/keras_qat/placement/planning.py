"""Planning the placement: (graph, target, overrides) → where every Q/DQ pair goes, with a reason for each decision.

Where an engine needs one scale on both sides of an operation (max-pool, concatenation), the quantized inputs and the
quantized output of the operation share a range. It is named after the first of these tensors, and covers the values of
all of them except those that are computed from the others alone.
"""

from collections.abc import Mapping

import keras

from keras_qat.errors import UserError, require_whole
from keras_qat.graph import Edge, Graph, Node, non_negative_tensors
from keras_qat.placement.edges import EdgePlanner, ask_function
from keras_qat.placement.flow import MOVES_NUMBERS, WEIGHTED, Flow
from keras_qat.placement.overrides import LayerRequests, Mode, Overrides, edge_request, read_requests, weight_request
from keras_qat.placement.rules import Rule
from keras_qat.targets import Target, find_target
from keras_qat.types import BITS, EdgeDecision, Kernel, OpKind, Placement, QuantizedTensor, QuantSpec, WeightDecision

_CHANNEL_AXIS = {OpKind.CONV: 3, OpKind.DEPTHWISE_CONV: 2, OpKind.CONV_TRANSPOSE: 2, OpKind.DENSE: 1}
"""Output-channel axis of the kernel in the Keras layout of an image.

That is (h, w, in, out), (h, w, in, multiplier), (h, w, out, in), and (in, out).
"""

_MORE_AXES: Mapping[type | None, int] = {
    **dict.fromkeys((keras.layers.Conv1D, keras.layers.DepthwiseConv1D, keras.layers.Conv1DTranspose), -1),
    **dict.fromkeys((keras.layers.Conv3D, keras.layers.Conv3DTranspose), 1),
}
"""How many axes more than an image's the kernels of these layers have."""


def plan(graph: Graph, target: str | Target, *, weight_bits: int = 8, overrides: Overrides | None = None) -> Placement:
    """Decide which edges and weights are quantized.

    Args:
        graph: the float model's facts, from `keras_qat.graph.trace(model).graph`.
        target: name of an engine, such as `"tensorrt"` or `"onnxruntime"`, or a `Target` of your own.
        weight_bits: width of the weights, 2 to 8. Fewer than 8 bits are simulated; the file still stores int8.
        overrides: what to quantize otherwise than the target's table says.

    Returns:
        The placement: a decision with a reason for every edge and for every layer with a kernel.

    Raises:
        UserError: If the target is unknown, `weight_bits` is not a whole number from 2 to 8, or a rule matches no
            layer or sets what none of its layers can have.

    Example:
        >>> import keras
        >>> from keras_qat.graph import trace
        >>> image = keras.Input((8, 8, 3), name="image")
        >>> model = keras.Model(image, keras.layers.Conv2D(4, 3, name="conv")(image))
        >>> [tensor.tensor for tensor in plan(trace(model).graph, "tensorrt").tensors]
        ['image']
    """
    overrides = Overrides() if overrides is None else overrides
    weight_bits = require_whole("weight_bits", weight_bits, BITS[0], BITS[-1])
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


def decide_weights(
    flow: Flow, layers: Mapping[str, LayerRequests], mode: Mode, weight_bits: int
) -> tuple[WeightDecision, ...]:
    """The decision on each layer with a kernel; a shared layer has one.

    Args:
        flow: the graph with the target's kernels.
        layers: what the rules ask of each node, by its name.
        mode: what holds where no rule matches: the target's table (`"full"`), or float (`"partial"`).
        weight_bits: width of the integers where no rule sets it.
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
    axis = _CHANNEL_AXIS[node.kind] + _MORE_AXES.get(node.layer_type, 0)
    return WeightDecision(node.layer, QuantSpec(bits=width, narrow=True, axis=axis), reason)


def require_weights(flow: Flow, rules: tuple[Rule, ...], weights: tuple[WeightDecision, ...]) -> None:
    """Check that no rule sets the width of weights that all stay float.

    Args:
        flow: the graph with the target's kernels.
        rules: the user's rules.
        weights: the decisions on all layers with a kernel.

    Raises:
        UserError: If a rule sets `weight_bits`, and every kernel that it selects stays float.
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


def quantized_tensors(flow: Flow, edges: tuple[EdgeDecision, ...]) -> tuple[QuantizedTensor, ...]:
    """The tensors that are quantized on at least one edge: their integers, and whose range they take.

    Args:
        flow: the graph with the target's kernels.
        edges: the decision on every edge.
    """
    non_negative = non_negative_tensors(flow.graph)
    quantized = frozenset(Edge(e.tensor, e.consumer, e.index) for e in edges if e.quantized)
    names = tuple(dict.fromkeys(edge.tensor for edge in edges if edge.quantized))
    made_of = {name: _made_of(flow, name, quantized) for name in names}
    tensors = []
    for name, group in _groups(names, made_of).items():
        first, *others = (m for m in group if not made_of[m] or _reads_float(flow, m, quantized))
        # One scale and one zero-point for the group: unsigned only if no member needs the sign.
        spec = flow.target.activation_spec(non_negative=all(member in non_negative for member in group))
        tensors.append(QuantizedTensor(name, spec, first, tuple(others)))
    return tuple(tensors)


def _made_of(flow: Flow, tensor: str, quantized: frozenset[Edge]) -> tuple[str, ...]:
    """The nearest quantized tensors upstream that share their scale with a tensor; float ones have none to share."""
    sources: list[str] = []
    for edge in _sharing_inputs(flow, tensor):
        sources += [edge.tensor] if edge in quantized else _made_of(flow, edge.tensor, quantized)
    return tuple(sources)


def _reads_float(flow: Flow, tensor: str, quantized: frozenset[Edge]) -> bool:
    """Whether a tensor holds values of a float tensor, which only its own range can cover."""
    edges = _sharing_inputs(flow, tensor)
    return not edges or any(e not in quantized and _reads_float(flow, e.tensor, quantized) for e in edges)


def _sharing_inputs(flow: Flow, tensor: str) -> tuple[Edge, ...]:
    """The inputs of a tensor's producer, if these have the scale of the tensor."""
    node = flow.graph.producer(tensor)
    if node.kind not in flow.target.shares_range and node.kind not in MOVES_NUMBERS:
        return ()
    return tuple(Edge(source, node.name, index) for index, source in enumerate(node.inputs))


def _groups(names: tuple[str, ...], made_of: Mapping[str, tuple[str, ...]]) -> Mapping[str, tuple[str, ...]]:
    """The tensors that share a range with each tensor, itself included, in the order of the graph."""
    together = {name: {name} for name in names}
    for name, sources in made_of.items():
        joined = set().union(together[name], *(together[source] for source in sources))
        together.update(dict.fromkeys(joined, joined))
    return {name: tuple(member for member in names if member in together[name]) for name in names}


def _kernels(flow: Flow) -> tuple[Kernel, ...]:
    groups = {id(group): group for group in flow.groups.values()}
    return tuple(
        Kernel(tuple(node.name for node in group.members), tuple(node.kind for node in group.members))
        for group in groups.values()
    )
