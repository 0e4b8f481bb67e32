"""The decision on every edge: whether it gets a Q/DQ pair, and why.

The first of these that applies to an edge decides:

1. the edge lies inside a fused kernel, or leaves the model: no pair;
2. a rule of the user asks for a pair, or for none;
3. the engine wants this input of the consumer quantized: a pair;
4. the operation that made the tensor runs in integers and needs a quantized output: a pair;
5. no pair.

A pair is moved upstream past operations that only move numbers, to where the engine can fuse it with the producer,
unless another reader of the same numbers needs them in float.
"""

from collections.abc import Mapping
from typing import Any

from keras_qat.errors import UserError
from keras_qat.graph import OUTPUT, Edge
from keras_qat.placement.flow import Flow, Group
from keras_qat.placement.overrides import EdgeRule, LayerRequests, Mode, Request, no_pair, output_request
from keras_qat.targets import Inputs
from keras_qat.text import callable_name
from keras_qat.types import EdgeDecision

_BY_TABLE = -1
"""The rank of what the target's table asks: every rule overrules it."""


class EdgePlanner:
    """Decides on every edge of a graph.

    Args:
        flow: the graph with the target's kernels.
        layers: what the rules ask of each node, by its name.
        asked: what the user asks of single edges.
        mode: what holds where the user asks nothing: the target's table (`"full"`), or float (`"partial"`).
        float_layers: names of the layers whose kernels stay float.
    """

    def __init__(
        self,
        flow: Flow,
        layers: Mapping[str, LayerRequests],
        asked: Mapping[Edge, Request],
        mode: Mode,
        float_layers: frozenset[str],
    ) -> None:
        self.flow = flow
        self.graph = flow.graph
        self.target = flow.target
        self.layers = layers
        self.asked = asked
        self.mode = mode
        self.float_layers = float_layers

    def decide(self) -> tuple[EdgeDecision, ...]:
        """The decision on every edge, in the order of the graph's edges."""
        wanted = {edge: self._wanted(edge) for edge in self.graph.edges}
        entries: dict[Edge, Request] = {}
        for edge, request in wanted.items():
            if request is not None and self._float_downstream(edge, request) is None:
                entry = self._entry(edge, wanted)
                entries[entry] = max(entries.get(entry, request), request, key=lambda r: r.rank)
        # A pair further upstream has already rounded these numbers.
        entries = {e: r for e, r in entries.items() if not any(u in entries for u in self.flow.upstream(e))}
        return tuple(self._decide(edge, wanted[edge], entries) for edge in self.graph.edges)

    def _wanted(self, edge: Edge) -> Request | None:
        """The request to quantize this edge, of the user or the target's table; `None` where there is none."""
        if edge.consumer == OUTPUT or self.flow.internal(edge) or not self.graph.producer(edge.tensor).floating:
            return None
        request = self.asked.get(edge)
        if request is not None and request.value != "target":
            return request if request.value else None
        reason = self._wanted_by_table(edge)
        if reason is None or request is None:
            return None if reason is None else Request(True, _BY_TABLE, reason)
        return Request(True, request.rank, f"{request.reason}; {reason}")

    def _wanted_by_table(self, edge: Edge) -> str | None:
        """Why the target's table quantizes this edge; `None` where it does not."""
        if self.flow.moves(edge.consumer):
            return None
        consumer = self.graph.by_name[edge.consumer]
        rule = self.target.rule(consumer.kind)
        takes = rule.inputs is Inputs.ALL or (
            rule.inputs is Inputs.ALL_BUT_FUSED_CONV and edge.index != self.flow.fused_branch(consumer)
        )
        if takes and self._by_table(self.layers[edge.consumer].inputs):
            return f"{consumer.kind} input: {rule.because}"
        producer = self.flow.source(edge.tensor)
        rule = self.target.rule(producer.root.kind)
        gives = rule.output and self._runs_in_integers(producer)
        if gives and self._by_table(output_request(self.flow, self.layers, edge.tensor)):
            return f"{producer.root.kind} output: {rule.because}"
        return None

    def _by_table(self, request: Request | None) -> bool:
        """Whether the target's table decides on a setting, given what the rules ask."""
        return self.mode == "full" if request is None else request.value == "target"

    def _runs_in_integers(self, group: Group) -> bool:
        """Whether a kernel runs in integers: no rule keeps its inputs or weights in float."""
        root = group.root
        float_inputs = any(self._asked_float(Edge(tensor, root.name, i)) for i, tensor in enumerate(root.inputs))
        float_weights = self.target.rule(root.kind).weights and root.layer in self.float_layers
        return not float_inputs and not float_weights

    def _float_downstream(self, edge: Edge, request: Request) -> str | None:
        """Why an edge with the same numbers further downstream must stay float; `None` if none must."""
        for reader in self.flow.readers(edge)[1:]:
            later = self.asked.get(reader)
            if reader.consumer == OUTPUT:
                return "the model's output stays float"
            if later is not None and later.value is False and later.rank > request.rank:
                return f"{reader.consumer!r} behind it stays float: {later.reason}"
        return None

    def _entry(self, edge: Edge, wanted: Mapping[Edge, Request | None]) -> Edge:
        """The edge on which the pair stands: the furthest upstream on which no other reader needs float numbers."""
        before = self.flow.before(edge)
        if before is None or self._asked_float(before):
            return edge
        for sibling in self.graph.consumers(edge.tensor):
            if any(self._stays_float(reader, wanted) for reader in self.flow.readers(sibling)):
                return edge
        return self._entry(before, wanted)

    def _asked_float(self, edge: Edge) -> bool:
        """Whether the user asks for no pair on an edge."""
        request = self.asked.get(edge)
        return request is not None and request.value is False

    def _stays_float(self, edge: Edge, wanted: Mapping[Edge, Request | None]) -> bool:
        unasked = self.mode == "partial" and wanted[edge] is None and not self.flow.moves(edge.consumer)
        return edge.consumer == OUTPUT or self._asked_float(edge) or unasked

    def _decide(self, edge: Edge, wanted: Request | None, entries: Mapping[Edge, Request]) -> EdgeDecision:
        entry = entries.get(edge)
        reason = self._refusal(edge, wanted, entries) if entry is None else entry.reason
        return EdgeDecision(edge.tensor, edge.consumer, edge.index, quantized=entry is not None, reason=reason)

    def _refusal(self, edge: Edge, wanted: Request | None, entries: Mapping[Edge, Request]) -> str:
        """Why no pair stands on this edge."""
        earlier = next((upstream for upstream in self.flow.upstream(edge) if upstream in entries), None)
        if earlier is not None:
            producer = self.graph.producer(edge.tensor)
            return f"already quantized at {earlier.tensor!r}: {producer.kind} only moves numbers"
        if edge.consumer == OUTPUT:
            return "the model's output stays float"
        if not self.graph.producer(edge.tensor).floating:
            return f"{edge.tensor!r} holds integers already"
        if self.flow.internal(edge):
            return f"fused: {self.flow.groups[edge.consumer]} run as one kernel"
        downstream = None if wanted is None else self._float_downstream(edge, wanted)
        return downstream or self._unwanted(edge)

    def _unwanted(self, edge: Edge) -> str:
        """Why neither the user nor the target's table asks for a pair on this edge."""
        request = self.asked.get(edge)
        if request is not None and request.value is False:
            return request.reason
        consumer = self.graph.by_name[edge.consumer]
        if self.flow.moves(edge.consumer):
            return f"{consumer.kind} only moves numbers, and nothing behind it wants them quantized"
        if self.mode == "partial" and request is None:
            return "partial quantization: no rule asks for a pair here"
        rule = self.target.rule(consumer.kind)
        if rule.inputs is Inputs.ALL_BUT_FUSED_CONV:
            return "the addition runs inside the kernel of this convolution, before its result is rounded"
        return f"{consumer.kind}: {rule.because}"


def ask_function(
    flow: Flow, function: EdgeRule, decisions: tuple[EdgeDecision, ...], rank: int
) -> Mapping[Edge, Request]:
    """Call the user's function of edges for every edge.

    Args:
        flow: the graph with the target's kernels.
        function: the user's function.
        decisions: the decision on every edge so far.
        rank: the rank of the function's requests, above that of every rule.

    Returns:
        What the function asks of each edge whose decision it changes.

    Raises:
        UserError: If the function returns anything but `None` or a decision on the edge in question, or asks for a pair
            where none can stand.
    """
    name = callable_name(function)
    asked = {}
    for decision in decisions:
        edge = Edge(decision.tensor, decision.consumer, decision.index)
        answer: Any = function(flow.graph, edge, decision)
        if answer is None or answer == decision:
            continue
        if not isinstance(answer, EdgeDecision) or Edge(answer.tensor, answer.consumer, answer.index) != edge:
            raise UserError(
                "A function of edges answers with a decision about the edge it is asked about, or None. "
                f"Received: {answer!r} from {name} for {edge}. Use dataclasses.replace(decision, …)."
            )
        problem = no_pair(flow, edge) if answer.quantized else None
        if problem is not None:
            raise UserError(f"{problem} Received: quantized=True from {name} for {edge}.")
        why = "" if answer.reason == decision.reason else f": {answer.reason}"
        asked[edge] = Request(answer.quantized, rank, f"function {name}{why}")
    return asked
