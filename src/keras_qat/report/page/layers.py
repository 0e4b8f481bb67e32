"""SQNR layer by layer: one list in the order of the graph, as the page draws it and as a table."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import singledispatch
from typing import Any

from keras_qat.evaluation import Advice, Diagnosis, KernelDiagnosis, TensorDiagnosis
from keras_qat.evaluation.advice import LOST_BITS
from keras_qat.evaluation.diagnosis import DB_PER_BIT, percent
from keras_qat.report.page.numbers import db_text, drawable
from keras_qat.types import Placement

WORST = 8
"""So many are shown before the table of all."""

BAD_DB = DB_PER_BIT * (8 - LOST_BITS)
"""Under this a tensor or kernel of 8 bits counts as bad."""

_NAMED = 3


@dataclass(frozen=True)
class LayerRow:
    """A tensor or kernel.

    Args:
        tensor: its name among the quantized tensors; `None` for a kernel.
        point: what the script draws.
        cells: what the table shows: label, alone, cumulative, saturated, range.
    """

    tensor: str | None
    point: Mapping[str, Any]
    cells: tuple[str, ...]


HEADER = ("", "alone", "cumulative", "saturated", "range")


def layer_rows(diagnosis: Diagnosis, placement: Placement | None) -> tuple[LayerRow, ...]:
    """All tensors and kernels in the order of the graph.

    Without a placement tensors and kernels are spread evenly over each other, since each alone is in order.
    """
    order = {} if placement is None else _order(placement)
    found: list[tuple[float, TensorDiagnosis | KernelDiagnosis]] = []
    kinds: tuple[tuple[TensorDiagnosis | KernelDiagnosis, ...], ...] = (diagnosis.kernels, diagnosis.tensors)
    for kind in kinds:
        for i, one in enumerate(kind):
            even = (i + 1) / len(kind) * max(len(order), 1)
            found.append((order.get(_node(one), even), one))
    in_order = [one for _, one in sorted(found, key=lambda it: it[0])]
    worst = [one.label for one in diagnosis.worst(WORST)]
    return tuple(_row(one, i, worst) for i, one in enumerate(in_order))


def layers_figure(variant: str, diagnosis: Diagnosis, rows: tuple[LayerRow, ...]) -> dict[str, Any]:
    """The points, the line under which a tensor counts as bad, and a text that says the worst.

    Args:
        variant: name of the row.
        diagnosis: of it.
        rows: of `layer_rows`.
    """
    worst = ", ".join(f"{one.label} {db_text(one.alone)}" for one in diagnosis.worst(_NAMED))
    alt = (
        f"SQNR of {len(diagnosis.tensors)} tensors and {len(diagnosis.kernels)} kernels of {variant}, in the order of "
        f"the graph. The worst: {worst}. A table of all follows."
    )
    return {"variant": variant, "points": [row.point for row in rows], "bad": BAD_DB, "alt": alt}


def grouped_advice(advices: tuple[Advice, ...]) -> list[tuple[str, list[Advice]]]:
    """Each remedy once, with what it is for."""
    remedies = dict.fromkeys(advice.remedy for advice in advices)
    return [(remedy, [advice for advice in advices if advice.remedy == remedy]) for remedy in remedies]


def _order(placement: Placement) -> dict[str, int]:
    """{node, or layer of a node that is called several times: its place in the graph}."""
    nodes = [node for kernel in placement.kernels for node in kernel.nodes]
    layers = {node.partition("#")[0]: i for i, node in reversed(list(enumerate(nodes)))}
    return layers | {node: i for i, node in enumerate(nodes)}


@singledispatch
def _node(one: Any) -> str:
    raise NotImplementedError(type(one))


@_node.register
def _tensor_node(one: TensorDiagnosis) -> str:
    return one.producer


@_node.register
def _kernel_node(one: KernelDiagnosis) -> str:
    return one.name


def _row(one: TensorDiagnosis | KernelDiagnosis, place: int, worst: list[str]) -> LayerRow:
    is_tensor = isinstance(one, TensorDiagnosis)
    cumulative = getattr(one, "cumulative", None)
    saturated = percent(one.saturated) if isinstance(one, TensorDiagnosis) else "–"
    amax = f"{one.amax:.4g}" if isinstance(one, TensorDiagnosis) else "–"
    text = f"{one.label}\nalone {db_text(one.alone)}"
    if is_tensor:
        text += f"\ncumulative {db_text(cumulative)}\n{saturated} saturate"
    return LayerRow(
        tensor=one.name if is_tensor else None,
        point={
            "place": place,
            "label": one.label,
            "kind": "tensor" if is_tensor else "kernel",
            "tensor": one.name if is_tensor else None,
            "alone": drawable(one.alone),
            "cumulative": drawable(cumulative),
            "worst": worst.index(one.label) if one.label in worst else None,
            "text": text,
        },
        cells=(one.label, db_text(one.alone), db_text(cumulative), saturated, amax),
    )
