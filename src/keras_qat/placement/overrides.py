"""What the user wants otherwise than the target's table: ordered rules about layers, and a function of edges.

For each setting (inputs, output, weights, weight_bits) of each layer the last rule that matches the layer and says
something about that setting wins. An edge has two ends: of the consumer's `inputs` and the producer's `output` the
later rule wins, and within one rule `inputs`.

(graph, overrides) → what the rules ask of each layer, or why a rule asks for what can't be.

A rule that matches nothing is taken for a typing error. A setting is refused where none of the layers that the rule
matches can have it; of a glob or type that matches others too, those are passed over.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from keras_qat.errors import UserError
from keras_qat.files import read_text, write_text
from keras_qat.graph import OUTPUT, Edge, Graph, Node
from keras_qat.placement.flow import WEIGHTED, Flow
from keras_qat.placement.rules import Rule, check_keys, close_to, matches, rule_from_json, rule_to_json
from keras_qat.types import EdgeDecision

Mode = Literal["full", "partial"]

EdgeRule = Callable[[Graph, Edge, EdgeDecision], EdgeDecision | None]
"""(graph, edge, the decision so far) → another decision, or `None` to leave it."""


@dataclass(frozen=True)
class Overrides:
    """A reusable value: apply it to any model whose layers it names.

    Args:
        rules: in order; the last that matches wins.
        mode: `"full"`: where no rule speaks, the target's table does. `"partial"`: there everything stays float.
        edges: has the last word on single edges. It is called once for every edge.

    Example:
        >>> overrides = Overrides((Rule.keep_float("conv1_conv", "predictions"),))
        >>> Overrides.from_json(overrides.to_json()) == overrides
        True
    """

    rules: tuple[Rule, ...] = ()
    mode: Mode = "full"
    edges: EdgeRule | None = None

    def __post_init__(self) -> None:
        """Take lists for tuples, refuse an unknown mode."""
        object.__setattr__(self, "rules", tuple(self.rules))
        if self.mode not in ("full", "partial"):
            raise UserError(f"`mode` must be 'full' or 'partial'. Received: mode={self.mode!r}.")

    def to_json(self) -> str:
        """The rules as JSON text.

        Raises:
            UserError: a rule selects by a predicate, or there is a function of edges: code can't be saved.
        """
        if self.edges is not None:
            raise UserError(
                f"A function of edges is code and can't be saved. Received: edges={function_name(self.edges)}. "
                "Say it in rules by name, glob or type, or pass the overrides in Python."
            )
        return json.dumps({"mode": self.mode, "rules": [rule_to_json(rule) for rule in self.rules]}, indent=2)

    @classmethod
    def from_json(cls, text: str) -> "Overrides":
        """What `to_json` wrote, or somebody by hand.

        Raises:
            UserError: the text isn't JSON of that form, or names an unknown key, kind or type.
        """
        try:
            value = json.loads(text)
        except json.JSONDecodeError as error:
            raise UserError(f"The overrides aren't JSON: {error}. Received: {text[:80]!r}. Mend that line.") from error
        check_keys(value, {"mode", "rules"}, "The value of overrides")
        rules = value.get("rules", [])
        if not isinstance(rules, list):
            raise UserError(f'`rules` must be a list. Received: {rules!r}. Write {{"rules": [{{"select": …}}]}}.')
        return cls(tuple(rule_from_json(rule) for rule in rules), value.get("mode", "full"))

    def save(self, path: str | Path) -> None:
        """Write the JSON to a file.

        Raises:
            StorageError: the file can't be written.
            UserError: as `to_json`.
        """
        write_text(Path(path), self.to_json() + "\n")

    @classmethod
    def load(cls, path: str | Path) -> "Overrides":
        """Read a file that `save` or a person wrote.

        Raises:
            StorageError: the file can't be read.
            UserError: as `from_json`.
        """
        return cls.from_json(read_text(Path(path)))


def function_name(function: Any) -> str:
    """What a function is called in a reason."""
    return str(getattr(function, "__name__", type(function).__name__))


@dataclass(frozen=True)
class Request:
    """What a rule says about one setting, or an edge.

    Args:
        value: of the setting: `True`, `False`, `"target"`, indices or bits.
        rank: the rule's place in the order; the higher wins.
        reason: which rule, for a human.
    """

    value: Any
    rank: int
    reason: str


@dataclass(frozen=True)
class LayerRequests:
    """The last word of the rules on each setting of one node; `None` where they say nothing."""

    inputs: Request | None = None
    output: Request | None = None
    weights: Request | None = None
    weight_bits: Request | None = None


def read_requests(flow: Flow, rules: tuple[Rule, ...]) -> Mapping[str, LayerRequests]:
    """What the rules ask of each node, by its name.

    Raises:
        UserError: a rule matches nothing, or asks for what none of its layers can have.
    """
    found = {node.name: LayerRequests() for node in flow.graph.nodes}
    for rank, rule in enumerate(rules):
        nodes = _selected(rule, rank, flow.graph)
        for setting, impossible in _IMPOSSIBLE.items():
            value = getattr(rule, setting)
            if value is None:
                continue
            request = Request(value, rank, f"rule {rank + 1}, {rule}")
            _require_possible(flow, request, nodes, impossible)
            for node in nodes:
                found[node.name] = replace(found[node.name], **{setting: request})
    return found


def edge_request(flow: Flow, requests: Mapping[str, LayerRequests], edge: Edge) -> Request | None:
    """The last word of the rules on one edge, from both its ends; its value is `True`, `False` or `"target"`."""
    if edge.consumer == OUTPUT or flow.internal(edge):
        return None
    said = [output_request(flow, requests, edge.tensor)]
    inputs = requests[edge.consumer].inputs
    if inputs is not None:
        chosen = edge.index in inputs.value if isinstance(inputs.value, tuple) else inputs.value
        said.append(replace(inputs, value=chosen))
    return _last(said)


def output_request(flow: Flow, requests: Mapping[str, LayerRequests], tensor: str) -> Request | None:
    """The last word on the output of what makes `tensor`."""
    members = [node for group in flow.makers(tensor) for node in group.members]
    return _last([requests[node.name].output for node in members])


def weight_request(graph: Graph, requests: Mapping[str, LayerRequests], layer: str, setting: str) -> Request | None:
    """The last word on the kernel of a layer, from all its calls."""
    return _last([getattr(requests[node.name], setting) for node in graph.nodes if node.layer == layer])


def _last(requests: list[Request | None]) -> Request | None:
    """The request of the highest rank; of equals the last."""
    found = [request for request in requests if request is not None]
    return max(reversed(found), key=lambda request: request.rank, default=None)


def _selected(rule: Rule, rank: int, graph: Graph) -> tuple[Node, ...]:
    for selector in rule.selectors:
        if not rule.optional and not any(matches(selector, node) for node in graph.nodes):
            raise UserError(
                f"Rule {rank + 1} matches no layer. Received: {rule}. {close_to(selector, graph)} "
                "With optional=True a rule may match nothing."
            )
    return tuple(node for node in graph.nodes if rule.selects(node))


def _require_possible(
    flow: Flow, request: Request, nodes: tuple[Node, ...], impossible: Callable[[Flow, Node, Any], str | None]
) -> None:
    """Refuse a request to quantize where none of the nodes can be; leaving float can be had everywhere."""
    if request.value is False or request.value == "target" or not nodes:
        return
    for part in request.value if isinstance(request.value, tuple) else (request.value,):
        problems = [impossible(flow, node, part) for node in nodes]
        if all(problems):
            raise UserError(f"{problems[0]} Received: {request.reason}.")


def _no_input(flow: Flow, node: Node, index: int | bool) -> str | None:
    """Why no pair can stand on that input (on any, if `index` is `True`)."""
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
    """Why no pair can ever stand on an edge, as a sentence; `None` where one can."""
    if flow.internal(edge):
        return (
            f"No pair can stand between {edge.tensor!r} and {edge.consumer!r}: {flow.groups[edge.consumer]} run as one "
            "kernel. Set `inputs` of its first layer, or `output` for what leaves it."
        )
    if any(reader.consumer == OUTPUT for reader in flow.readers(edge)):
        return f"No pair can stand between {edge.tensor!r} and {edge.consumer!r}: the model's output stays float."
    return None


_IMPOSSIBLE: Mapping[str, Callable[[Flow, Node, Any], str | None]] = {
    "inputs": _no_input,
    "output": _no_output,
    "weights": _no_kernel,
    "weight_bits": _no_kernel,
}
"""Of each setting, why a node can't have it, as a sentence; `None` where it can."""
