"""Deviations from the target's table: ordered rules about layers, a function of edges, and what they ask of a graph.

For each setting (inputs, output, weights, weight_bits) of each layer, the last rule wins that matches the layer and
sets it. An edge has two ends: of the consumer's `inputs` and the producer's `output` the later rule wins, and within
one rule `inputs`.

A rule that matches nothing is an error, since it is usually a typing error. So is a setting that no layer matched by
the rule can have; if only some of them can, as with a glob or a type, the others are passed over.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from keras_qat.errors import UserError
from keras_qat.files import parse_json, read_text, write_text
from keras_qat.graph import OUTPUT, Edge, Graph, Node
from keras_qat.placement.flow import WEIGHTED, Flow
from keras_qat.placement.rules import Rule, check_keys, matches, rule_from_json, rule_to_json, suggestion
from keras_qat.text import callable_name
from keras_qat.types import EdgeDecision

Mode = Literal["full", "partial"]

EdgeRule = Callable[[Graph, Edge, EdgeDecision], EdgeDecision | None]
"""(graph, edge, the decision so far) → another decision, or `None` to keep it."""


_Obstacle = Callable[[Flow, Node, Any], str | None]
"""(flow, node, value of a setting) → why the node can't have it, as a sentence; `None` where it can."""


@dataclass(frozen=True)
class Overrides:
    """What to quantize otherwise than the target's table says; reusable for any model with matching layers.

    Args:
        rules: in order; the last rule that matches wins.
        mode: what holds where no rule matches: the target's table (`"full"`), or everything stays float (`"partial"`).
        edges: a function that may change the decision on single edges after the rules. It is called once per edge.

    Raises:
        UserError: If the mode is unknown.

    Example:
        >>> overrides = Overrides((Rule.keep_float("conv1_conv", "predictions"),))
        >>> Overrides.from_json(overrides.to_json()) == overrides
        True
    """

    rules: tuple[Rule, ...] = ()
    mode: Mode = "full"
    edges: EdgeRule | None = None

    def __post_init__(self) -> None:
        """Turn a list of rules into a tuple, and check the mode."""
        object.__setattr__(self, "rules", tuple(self.rules))
        if self.mode not in ("full", "partial"):
            raise UserError(f"`mode` must be 'full' or 'partial'. Received: mode={self.mode!r}.")

    def to_json(self) -> str:
        """The rules as JSON text.

        Raises:
            UserError: If a rule selects by a predicate or by a layer type unknown to Keras, or there is a function of
                edges: code can't be saved.
        """
        if self.edges is not None:
            raise UserError(
                f"A function of edges is code and can't be saved. Received: edges={callable_name(self.edges)}. "
                "Say it in rules by name, glob or type, or pass the overrides in Python."
            )
        return json.dumps({"mode": self.mode, "rules": [rule_to_json(rule) for rule in self.rules]}, indent=2)

    @classmethod
    def from_json(cls, text: str) -> "Overrides":
        """Read the JSON text that `to_json` or a person wrote.

        Args:
            text: the JSON text.

        Raises:
            UserError: If the text is not JSON of that form, or has an unknown key, kind or type.
        """
        value = parse_json(text, "The text of overrides")
        check_keys(value, {"mode", "rules"}, "The value of overrides")
        rules = value.get("rules", [])
        if not isinstance(rules, list):
            raise UserError(f'`rules` must be a list. Received: {rules!r}. Write {{"rules": [{{"select": …}}]}}.')
        return cls(tuple(rule_from_json(rule) for rule in rules), value.get("mode", "full"))

    def save(self, path: str | Path) -> None:
        """Write the JSON text to a file.

        Args:
            path: the file; it is replaced if it exists.

        Raises:
            StorageError: If the file can't be written.
            UserError: If the overrides can't be saved, as in `to_json`.
        """
        write_text(Path(path), self.to_json() + "\n")

    @classmethod
    def load(cls, path: str | Path) -> "Overrides":
        """Read a file that `save` or a person wrote.

        Args:
            path: the file.

        Raises:
            StorageError: If the file can't be read.
            UserError: If the file does not hold overrides, as in `from_json`.
        """
        return cls.from_json(read_text(Path(path)))


@dataclass(frozen=True)
class Request:
    """What a rule asks for one setting of a node, or for an edge.

    Args:
        value: the value of the setting: `True`, `False`, `"target"`, indices of inputs, or bits.
        rank: the position of the rule; the higher rank wins.
        reason: which rule it is, in words.
    """

    value: Any
    rank: int
    reason: str


@dataclass(frozen=True)
class LayerRequests:
    """The request that wins for each setting of one node; `None` where no rule sets it."""

    inputs: Request | None = None
    output: Request | None = None
    weights: Request | None = None
    weight_bits: Request | None = None


def read_requests(flow: Flow, rules: tuple[Rule, ...]) -> Mapping[str, LayerRequests]:
    """What the rules ask of each node.

    Args:
        flow: the graph with the target's kernels.
        rules: in order; the last rule that matches wins.

    Returns:
        The winning requests, by node name.

    Raises:
        UserError: If a rule matches nothing, or sets what none of its layers can have.
    """
    requests = {node.name: LayerRequests() for node in flow.graph.nodes}
    for rank, rule in enumerate(rules):
        nodes = _selected(rule, rank, flow.graph)
        for setting, value in rule.settings.items():
            request = Request(value, rank, f"rule {rank + 1}, {rule}")
            _require_possible(flow, request, nodes, _OBSTACLES[setting])
            for node in nodes:
                requests[node.name] = replace(requests[node.name], **{setting: request})
    return requests


def edge_request(flow: Flow, requests: Mapping[str, LayerRequests], edge: Edge) -> Request | None:
    """The request that wins for an edge, of those for its two ends.

    Args:
        flow: the graph with the target's kernels.
        requests: what the rules ask of each node.
        edge: any edge.

    Returns:
        A request whose value is `True`, `False` or `"target"`; `None` where no rule asks anything.
    """
    if edge.consumer == OUTPUT or flow.internal(edge):
        return None
    inputs = requests[edge.consumer].inputs
    if inputs is not None and isinstance(inputs.value, tuple):
        inputs = replace(inputs, value=edge.index in inputs.value)
    return _winner([output_request(flow, requests, edge.tensor), inputs])


def output_request(flow: Flow, requests: Mapping[str, LayerRequests], tensor: str) -> Request | None:
    """The request that wins for the output of the nodes that make `tensor`."""
    members = [node for group in flow.makers(tensor) for node in group.members]
    return _winner([requests[node.name].output for node in members])


def weight_request(graph: Graph, requests: Mapping[str, LayerRequests], layer: str, setting: str) -> Request | None:
    """The request that wins for a setting of a layer's kernel, of those for all calls of the layer."""
    return _winner([getattr(requests[node.name], setting) for node in graph.nodes if node.layer == layer])


def _winner(requests: list[Request | None]) -> Request | None:
    """The request of the highest rank; the last one of a tie."""
    asked = [request for request in requests if request is not None]
    return max(reversed(asked), key=lambda request: request.rank, default=None)


def _selected(rule: Rule, rank: int, graph: Graph) -> tuple[Node, ...]:
    for selector in rule.selectors:
        if not rule.optional and not any(matches(selector, node) for node in graph.nodes):
            raise UserError(
                f"Rule {rank + 1} matches no layer. Received: {rule}. {suggestion(selector, graph)} "
                "With optional=True a rule may match nothing."
            )
    return tuple(node for node in graph.nodes if rule.selects(node))


def _require_possible(flow: Flow, request: Request, nodes: tuple[Node, ...], obstacle: _Obstacle) -> None:
    """Check that at least one of the nodes can be quantized as asked; each can stay float."""
    if request.value is False or request.value == "target" or not nodes:
        return
    for part in request.value if isinstance(request.value, tuple) else (request.value,):
        problems = [obstacle(flow, node, part) for node in nodes]
        if all(problems):
            raise UserError(f"{problems[0]} Received: {request.reason}.")


def _no_input(flow: Flow, node: Node, index: int | bool) -> str | None:
    """Why no pair can stand on an input of a node, or on any of them if `index` is `True`."""
    edges = [Edge(tensor, node.name, i) for i, tensor in enumerate(node.inputs) if index is True or i == index]
    if not edges:
        return f"{node.name!r} has {len(node.inputs)} inputs, counted from 0."
    reasons = [no_pair(flow, edge) for edge in edges]
    return reasons[0] if all(reasons) else None


def _no_output(flow: Flow, node: Node, value: bool) -> str | None:  # noqa: ARG001
    edges = [reader for edge in flow.leaving(node) for reader in flow.readers(edge)]
    if any(no_pair(flow, edge) is None for edge in edges):
        return None
    return f"What {node.name!r} makes is read as the model's output only, which stays float."


def _no_kernel(flow: Flow, node: Node, value: int | bool) -> str | None:  # noqa: ARG001
    if node.kind in WEIGHTED:
        return None
    return f"{node.name!r} ({node.kind}) has no kernel to quantize; convolutions and dense layers have one."


def no_pair(flow: Flow, edge: Edge) -> str | None:
    """Why no pair can stand on an edge, as a sentence; `None` where one can."""
    if flow.internal(edge):
        return (
            f"No pair can stand between {edge.tensor!r} and {edge.consumer!r}: {flow.groups[edge.consumer]} run as one "
            "kernel. Set `inputs` of its first layer, or `output` for what leaves it."
        )
    if not flow.graph.producer(edge.tensor).floating:
        return f"No pair can stand between {edge.tensor!r} and {edge.consumer!r}: the tensor holds integers already."
    if any(reader.consumer == OUTPUT for reader in flow.readers(edge)):
        return f"No pair can stand between {edge.tensor!r} and {edge.consumer!r}: the model's output stays float."
    return None


_OBSTACLES: Mapping[str, _Obstacle] = {
    "inputs": _no_input,
    "output": _no_output,
    "weights": _no_kernel,
    "weight_bits": _no_kernel,
}
