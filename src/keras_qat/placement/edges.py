"""Ask the user's function of edges about every edge.

Which edges get a Q/DQ pair, with a reason for each.

For each edge into an operation, in this order:

1. inside a fused kernel, or out of the model: no pair;
2. the last word of the user's rules, if they have one;
3. the engine wants this input quantized: a pair;
4. the operation that made the tensor runs in integers and needs a quantized output: a pair;
5. otherwise no pair.

Operations that only move numbers are seen through: the pair stands before them, where the engine can fuse it with the
producer, unless somebody who reads the same numbers must have them float.
"""

from collections.abc import Mapping
from typing import Any

from keras_qat.errors import UserError
from keras_qat.graph import OUTPUT, Edge
from keras_qat.placement.flow import Flow, Group
from keras_qat.placement.overrides import EdgeRule, LayerRequests, Mode, Request, function_name, no_pair, output_request
from keras_qat.targets import Inputs
from keras_qat.types import EdgeDecision


def ask_function(
    flow: Flow, function: EdgeRule, decisions: tuple[EdgeDecision, ...], rank: int
) -> Mapping[Edge, Request]:
    """What the function asks of the edges whose decision it changes.

    Args:
        flow: the graph with the target's kernels.
        function: the user's.
        decisions: of every edge, so far.
        rank: above that of every rule.

    Raises:
        UserError: it answers with something else than a decision about the edge, or wants a pair where none can stand.
    """
    name = function_name(function)
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


_BY_TABLE = -1
"""The rank of what a target's table asks: any rule overrules it."""


class EdgePlanner:
    """The facts that the decisions are made from.

    Args:
        flow: the graph with the target's kernels.
        layers: what the rules ask of each node.
        asked: what the user asks of single edges.
        mode: what holds where nobody asks.
        float_layers: the layers whose kernels stay float.
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
        """A decision for every edge of the graph, in its order."""
        wanted = {edge: self._wanted(edge) for edge in self.graph.edges}
        entries: dict[Edge, Request] = {}
        for edge, request in wanted.items():
            if request is not None and self._overruled_behind(edge, request) is None:
                entry = self._entry(edge, wanted)
                entries[entry] = max(entries.get(entry, request), request, key=lambda r: r.rank)
        # A pair further up has rounded these numbers already.
        entries = {e: r for e, r in entries.items() if not any(u in entries for u in self.flow.upstream(e))}
        return tuple(self._decide(edge, wanted[edge], entries) for edge in self.graph.edges)

    def _wanted(self, edge: Edge) -> Request | None:
        """Who wants the numbers on this edge quantized; `None` where nobody does."""
        if edge.consumer == OUTPUT or self.flow.internal(edge):
            return None
        request = self.asked.get(edge)
        if request is not None and request.value != "target":
            return request if request.value else None
        reason = self._wanted_by_table(edge)
        if reason is None or request is None:
            return None if reason is None else Request(True, _BY_TABLE, reason)
        return Request(True, request.rank, f"{request.reason}; {reason}")

    def _wanted_by_table(self, edge: Edge) -> str | None:
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
        """Whether the target's table decides a setting."""
        return self.mode == "full" if request is None else request.value == "target"

    def _runs_in_integers(self, group: Group) -> bool:
        """Whether no rule keeps an input or the weights of a kernel float; then its output needn't be quantized."""
        root = group.root
        inputs = [self.asked.get(Edge(tensor, root.name, i)) for i, tensor in enumerate(root.inputs)]
        float_inputs = any(request is not None and request.value is False for request in inputs)
        float_weights = self.target.rule(root.kind).weights and root.layer in self.float_layers
        return not float_inputs and not float_weights

    def _overruled_behind(self, edge: Edge, request: Request) -> str | None:
        """Why a pair before an operation that only moves numbers would round what must stay float behind it."""
        for reader in self.flow.readers(edge)[1:]:
            later = self.asked.get(reader)
            if reader.consumer == OUTPUT:
                return "the model's output stays float"
            if later is not None and later.value is False and later.rank > request.rank:
                return f"{reader.consumer!r} behind it stays float: {later.reason}"
        return None

    def _entry(self, edge: Edge, wanted: Mapping[Edge, Request | None]) -> Edge:
        """The edge upstream of all operations that only move numbers, where the pair stands."""
        before = self.flow.before(edge)
        if before is None or self._asked_float(before):
            return edge
        for sibling in self.graph.consumers(edge.tensor):
            if any(self._stays_float(reader, wanted) for reader in self.flow.readers(sibling)):
                return edge
        return self._entry(before, wanted)

    def _asked_float(self, edge: Edge) -> bool:
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
        if self.flow.internal(edge):
            return f"fused: {self.flow.groups[edge.consumer]} run as one kernel"
        overruled = None if wanted is None else self._overruled_behind(edge, wanted)
        return overruled or self._unwanted(edge)

    def _unwanted(self, edge: Edge) -> str:
        """Why nobody wants this edge quantized."""
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
