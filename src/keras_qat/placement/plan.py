"""Decide where the Q/DQ pairs go: (graph, target, overrides) → `Placement`, with a reason for every edge."""

from keras_qat.graph import Graph
from keras_qat.placement.edge_rule import ask_function
from keras_qat.placement.edges import EdgePlanner
from keras_qat.placement.flow import Flow
from keras_qat.placement.overrides import Overrides
from keras_qat.placement.requests import edge_request, read_requests
from keras_qat.placement.tensors import quantized_tensors
from keras_qat.placement.weights import decide_weights, require_weights
from keras_qat.targets import Target, find_target
from keras_qat.types import Kernel, Placement


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
