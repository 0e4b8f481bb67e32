"""Which layers' kernels are quantized, in how many bits, and why."""

from collections.abc import Mapping

from keras_qat.errors import UserError
from keras_qat.graph import Node
from keras_qat.placement.flow import Flow
from keras_qat.placement.groups import WEIGHTED
from keras_qat.placement.overrides import Mode
from keras_qat.placement.requests import LayerRequests, weight_request
from keras_qat.placement.rule import Rule
from keras_qat.types import OpKind, QuantSpec, WeightDecision

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
