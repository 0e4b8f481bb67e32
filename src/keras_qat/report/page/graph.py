"""SQNR layer by layer: one list in the order of the graph, as the page draws it and as a table.

Each quantized tensor by itself: range, scale, what its numbers look like, what quantizing it costs.

The placement as the page draws it: the boxes and arrows of `picture`, with what a diagnosis says of them.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import singledispatch
from typing import Any

from keras_qat.evaluation import DB_PER_BIT, LOST_BITS, Advice, Diagnosis, KernelDiagnosis, TensorDiagnosis, percent
from keras_qat.placement import Arrow, Flowing, Picture, describe_spec, picture
from keras_qat.report.page.figures import db_text, drawable
from keras_qat.report.run_files import RunFiles
from keras_qat.types import Placement, QuantizedTensor, TensorRange

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


def tensor_views(files: RunFiles) -> list[dict[str, Any]]:
    """What the explorer shows of each tensor, in the order of the graph; nothing without ranges."""
    if files.ranges is None:
        return []
    diagnosed = {
        variant: {one.name: one for one in found.diagnosis.tensors} for variant, found in files.diagnoses.items()
    }
    if files.placement is None:
        return [_view(name, None, found, diagnosed) for name, found in files.ranges.items()]
    known = [tensor for tensor in files.placement.tensors if tensor.range_of in files.ranges]
    return [_view(tensor.tensor, tensor, files.ranges[tensor.range_of], diagnosed) for tensor in known]


def _view(
    name: str,
    tensor: QuantizedTensor | None,
    found: TensorRange,
    diagnosed: Mapping[str, Mapping[str, TensorDiagnosis]],
) -> dict[str, Any]:
    facts = [("Range", f"{found.amax:.4g}, by {found.method} on {found.images} images")]
    if tensor is not None:
        facts += [("Scale", f"{found.amax / tensor.spec.q_max:.4g}"), ("Integers", describe_spec(tensor.spec))]
        if tensor.range_of != tensor.tensor:
            facts.append(("Shares the range of", tensor.range_of))
    facts += [(f"Magnitude, {key}", f"{value:.4g}") for key, value in (found.summary or {}).items()]
    for variant, tensors in diagnosed.items():
        if name in tensors:
            facts += _figures(variant, tensors[name], found.amax)
    largest = (found.summary or {}).get("max")
    histogram = found.histogram if largest and found.histogram else None
    clip = f"clip {found.amax:.4g}"
    shown = f"largest magnitude {largest:.4g}, {clip}" if largest else clip
    return {
        "name": name,
        "facts": facts,
        "clip": drawable(found.amax),
        "clip_label": clip,
        "largest": largest,
        "histogram": histogram,
        "alt": f"Histogram of the magnitudes of {name}, shares on a logarithmic axis: {shown}.",
    }


def _figures(variant: str, found: TensorDiagnosis, calibrated: float) -> list[tuple[str, str]]:
    figures = [
        (f"SQNR alone, {variant}", db_text(found.alone)),
        (f"SQNR cumulative, {variant}", db_text(found.cumulative)),
        (f"Saturated, {variant}", percent(found.saturated)),
    ]
    text = f"{found.amax:.4g}"
    return figures if text == f"{calibrated:.4g}" else [(f"Range, {variant}", text), *figures]


def graph_view(files: RunFiles) -> dict[str, Any] | None:
    """Boxes and arrows, in order of flow; `None` without a placement.

    A box also has the tensor that it quantizes, if it is a Q/DQ pair, and the SQNR of that or of its kernel, alone.
    """
    placement = files.placement
    if placement is None:
        return None
    ranges = files.ranges
    if ranges is not None and any(tensor.range_of not in ranges for tensor in placement.tensors):
        ranges = None
    drawn = picture(placement, ranges)
    counts = _counts(placement)
    first = next(iter(files.diagnoses.values()), None)
    costs = {} if first is None else _costs(placement, first.diagnosis)
    bad = {key for key, sqnr in costs.items() if sqnr < BAD_DB}
    tensors = {f"q{i}": tensor.tensor for i, tensor in enumerate(placement.tensors)}
    boxes = [
        {
            **asdict(box),
            "tensor": tensors.get(box.key),
            "cost": db_text(costs[box.key]) if box.key in costs else None,
            "bad": box.key in bad,
        }
        for box in _in_flow(drawn)
    ]
    return {
        "boxes": boxes,
        "arrows": [_arrow_view(arrow) for arrow in drawn.arrows],
        "counts": counts,
        "alt": f"{drawn.title}: {len(drawn.boxes)} boxes and {len(drawn.arrows)} arrows. {counts}",
    }


def _arrow_view(arrow: Arrow) -> dict[str, Any]:
    return {
        "source": arrow.source,
        "sink": arrow.sink,
        "quantized": arrow.flowing is Flowing.QUANTIZED,
        "tooltip": arrow.tooltip,
    }


def _in_flow(drawn: Picture) -> list[Any]:
    """Each Q/DQ pair behind the kernel that makes its tensor, so that the next box is the next one to look at."""
    pairs = {box.key: box for box in drawn.boxes if box.pair}
    made = {arrow.sink: arrow.source for arrow in drawn.arrows if arrow.sink in pairs}
    ordered = []
    for box in drawn.boxes:
        if not box.pair:
            ordered += [box, *(pairs[key] for key, source in made.items() if source == box.key)]
    return ordered + [box for key, box in pairs.items() if key not in made]


def _costs(placement: Placement, diagnosis: Diagnosis) -> dict[str, float]:
    """{key of a box: the SQNR of its tensor or kernel alone, in dB}."""
    tensors = {one.name: one.alone for one in diagnosis.tensors}
    kernels = {one.name: one.alone for one in diagnosis.kernels}
    pairs = {f"q{i}": tensors.get(tensor.tensor) for i, tensor in enumerate(placement.tensors)}
    layers = {f"n{i}": kernels.get(one.nodes[0].partition("#")[0]) for i, one in enumerate(placement.kernels)}
    return {key: sqnr for key, sqnr in {**pairs, **layers}.items() if sqnr is not None}


def _counts(placement: Placement) -> str:
    quantized = len(placement.quantized_edges)
    kernels = sum(weight.spec is not None for weight in placement.weights)
    return (
        f"{quantized} of {len(placement.edges)} edges are quantized, by {len(placement.tensors)} Q/DQ pairs; "
        f"{kernels} of {len(placement.weights)} kernels hold integers."
    )
