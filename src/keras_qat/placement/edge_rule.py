"""Ask the user's function of edges about every edge."""

from collections.abc import Mapping
from typing import Any

from keras_qat.errors import UserError
from keras_qat.graph import Edge
from keras_qat.placement.flow import Flow
from keras_qat.placement.overrides import EdgeRule, function_name
from keras_qat.placement.requests import Request, no_pair
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
