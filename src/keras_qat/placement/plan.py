"""Decide where the Q/DQ pairs go: (graph, target) → `Placement`, with a reason for every edge.

For each edge into an operation, in this order:

1. inside a fused kernel: no pair;
2. the engine wants this input quantized: a pair;
3. the operation that made the tensor needs a quantized output: a pair;
4. otherwise no pair.

Operations that only move numbers (zero padding, reshape, dropout at inference) are seen through: the pair stands before
them, where the engine can fuse it with the producer. That is exact, since 0.0 is always on the grid.
"""

from collections.abc import Mapping

from keras_qat.graph import OUTPUT, Edge, Graph, Node, non_negative_tensors
from keras_qat.placement.groups import WEIGHTED, Group, fused_groups
from keras_qat.targets import Inputs, Target, find_target
from keras_qat.types import EdgeDecision, OpKind, Placement, QuantizedTensor, QuantSpec, WeightDecision

_MOVES_NUMBERS = frozenset({OpKind.ZERO_PAD, OpKind.RESHAPE, OpKind.IDENTITY})

_CHANNEL_AXIS = {OpKind.CONV: 3, OpKind.DEPTHWISE_CONV: 2, OpKind.DENSE: 1}
"""Output-channel axis of the kernel in the Keras layout: (h, w, in, out), (h, w, in, multiplier), (in, out)."""


def plan(graph: Graph, target: str | Target, *, weight_bits: int = 8) -> Placement:
    """Decide which edges and weights are quantized.

    Args:
        graph: the float model's facts, from `keras_qat.graph.trace(model).graph`.
        target: name of an engine (`"tensorrt"`, `"onnxruntime"`), or a table of your own.
        weight_bits: width of the weights, 2 to 8. Fewer than 8 are simulated; the file still stores int8.

    Returns:
        The placement: every edge and every weighted layer with a decision and a reason.

    Raises:
        UserError: the target is unknown.
    """
    return _Planner(graph, find_target(target), weight_bits).placement()


class _Planner:
    """The facts that the decisions are made from, and the decisions."""

    def __init__(self, graph: Graph, target: Target, weight_bits: int) -> None:
        self.graph = graph
        self.target = target
        self.weight_bits = weight_bits
        self.groups = fused_groups(graph, target)
        self.non_negative = non_negative_tensors(graph)

    def placement(self) -> Placement:
        wanted = {edge: self._wanted(edge) for edge in self.graph.edges}
        entries: dict[Edge, str] = {}
        for edge, reason in wanted.items():
            if reason is not None:
                entries.setdefault(self._entry(edge), reason)
        edges = tuple(self._decide(edge, entries) for edge in self.graph.edges)
        return Placement(
            target=self.target.name,
            tensors=self._tensors(edges),
            edges=edges,
            weights=tuple(self._weight(node) for node in self._weighted_layers()),
        )

    def _wanted(self, edge: Edge) -> str | None:
        """Why the numbers on this edge should be quantized; `None` where they should not."""
        if edge.consumer == OUTPUT or self._internal(edge) or self._moves(edge.consumer):
            return None
        consumer = self.graph.by_name[edge.consumer]
        rule = self.target.rule(consumer.kind)
        if rule.inputs is Inputs.ALL or (
            rule.inputs is Inputs.ALL_BUT_FUSED_CONV and edge.index != self._fused_branch(consumer)
        ):
            return f"{consumer.kind} input: {rule.because}"
        producer = self._producer_group(edge.tensor).root
        if self.target.rule(producer.kind).output:
            return f"{producer.kind} output: {self.target.rule(producer.kind).because}"
        return None

    def _decide(self, edge: Edge, entries: Mapping[Edge, str]) -> EdgeDecision:
        if edge in entries:
            return EdgeDecision(edge.tensor, edge.consumer, edge.index, quantized=True, reason=entries[edge])
        reason = self._refusal(edge, quantized_at=self._entry(edge) if self._entry(edge) in entries else None)
        return EdgeDecision(edge.tensor, edge.consumer, edge.index, quantized=False, reason=reason)

    def _refusal(self, edge: Edge, quantized_at: Edge | None) -> str:
        """Why no pair stands on this edge."""
        if quantized_at is not None:
            producer = self.graph.producer(edge.tensor)
            return f"already quantized at {quantized_at.tensor!r}: {producer.kind} only moves numbers"
        if edge.consumer == OUTPUT:
            return "the model's output stays float"
        if self._internal(edge):
            return f"fused: {self.groups[edge.consumer]} run as one kernel"
        consumer = self.graph.by_name[edge.consumer]
        if self._moves(edge.consumer):
            return f"{consumer.kind} only moves numbers, and nothing behind it wants them quantized"
        rule = self.target.rule(consumer.kind)
        if rule.inputs is Inputs.ALL_BUT_FUSED_CONV:
            return "the addition runs inside the kernel of this convolution, before its result is rounded"
        return f"{consumer.kind}: {rule.because}"

    def _internal(self, edge: Edge) -> bool:
        producer = self.graph.producer(edge.tensor)
        return edge.consumer != OUTPUT and self.groups[producer.name] is self.groups[edge.consumer]

    def _moves(self, node: str) -> bool:
        return node != OUTPUT and self.graph.by_name[node].kind in _MOVES_NUMBERS

    def _entry(self, edge: Edge) -> Edge:
        """The edge upstream of all operations that only move numbers, where the pair stands.

        A tensor that leaves the model stays float, so the pair stands behind it.
        """
        producer = self.graph.producer(edge.tensor)
        leaves = any(reader.consumer == OUTPUT for reader in self.graph.consumers(edge.tensor))
        if producer.kind not in _MOVES_NUMBERS or leaves:
            return edge
        return self._entry(Edge(producer.inputs[0], producer.name, 0))

    def _producer_group(self, tensor: str) -> Group:
        """The group whose result `tensor` carries, seen through operations that only move numbers."""
        producer = self.graph.producer(tensor)
        while producer.kind in _MOVES_NUMBERS:
            producer = self.graph.producer(producer.inputs[0])
        return self.groups[producer.name]

    def _fused_branch(self, add: Node) -> int | None:
        """Which input of a residual Add the engine adds inside a convolution: the last that qualifies."""
        for index in reversed(range(len(add.inputs))):
            tensor = add.inputs[index]
            group = self.groups[self.graph.producer(tensor).name]
            convolves = group.root.kind in {OpKind.CONV, OpKind.DEPTHWISE_CONV} and group.root.activation is None
            activated = group.members[-1].kind in self.target.fused_activations
            if convolves and not activated and self.graph.sole_consumer(tensor) is add:
                return index
        return None

    def _tensors(self, edges: tuple[EdgeDecision, ...]) -> tuple[QuantizedTensor, ...]:
        names = dict.fromkeys(edge.tensor for edge in edges if edge.quantized)
        return tuple(
            QuantizedTensor(
                name,
                self.target.activation_spec(non_negative=name in self.non_negative),
                self._range_owner(name, frozenset(names)),
            )
            for name in names
        )

    def _range_owner(self, tensor: str, quantized: frozenset[str]) -> str:
        """The tensor whose range this one takes, back through operations that need one scale on both sides."""
        node = self.graph.producer(tensor)
        source = tensor
        while node.kind in self.target.shares_range or node.kind in _MOVES_NUMBERS:
            source = node.inputs[0]
            node = self.graph.producer(source)
        return source if source in quantized else tensor

    def _weighted_layers(self) -> tuple[Node, ...]:
        """One node for each layer with a kernel, shared layers once."""
        return tuple({node.layer: node for node in self.graph.nodes if node.kind in WEIGHTED}.values())

    def _weight(self, node: Node) -> WeightDecision:
        rule = self.target.rule(node.kind)
        if not rule.weights:
            return WeightDecision(node.layer, None, f"{node.kind}: {rule.because}")
        spec = QuantSpec(bits=self.weight_bits, narrow=True, axis=_CHANNEL_AXIS[node.kind])
        return WeightDecision(node.layer, spec, f"{node.kind} weights: {rule.because}")
