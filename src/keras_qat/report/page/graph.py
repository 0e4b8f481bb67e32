"""The network as the page shows it: SQNR layer by layer, each quantized tensor, and the placement as a graph."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from operator import itemgetter
from typing import Any

from keras_qat.evaluation import DB_PER_BIT, LOST_BITS, Diagnosis, KernelDiagnosis, TensorDiagnosis, percent
from keras_qat.placement import Flowing, Picture, describe_spec, picture
from keras_qat.report.page.figures import db_text, drawable
from keras_qat.report.record import RunFiles
from keras_qat.types import Placement, QuantizedTensor, TensorRange

WORST = 8
"""The number of tensors and kernels that are shown before the table of all."""

_BAD_DB = DB_PER_BIT * (8 - LOST_BITS)
"""Under this SQNR a tensor or kernel of 8 bits counts as bad."""

_NAMED = 3
"""The number of tensors and kernels that the text of the figure names."""


@dataclass(frozen=True)
class LayerRow:
    """A tensor or kernel.

    Args:
        tensor: its name among the quantized tensors; `None` for a kernel.
        point: what the script draws.
        cells: what the table shows, a cell for each of `HEADER`.
    """

    tensor: str | None
    point: Mapping[str, Any]
    cells: tuple[str, ...]


def layer_rows(diagnosis: Diagnosis, placement: Placement | None) -> tuple[LayerRow, ...]:
    """All tensors and kernels in the order of the graph.

    Without a placement, which has the order, the tensors are spread evenly among the kernels: each list is in order.
    """
    order = {} if placement is None else _order(placement)
    placed: list[tuple[float, TensorDiagnosis | KernelDiagnosis]] = []
    kinds: tuple[tuple[TensorDiagnosis | KernelDiagnosis, ...], ...] = (diagnosis.kernels, diagnosis.tensors)
    for layers in kinds:
        for i, layer in enumerate(layers):
            even = (i + 1) / len(layers) * max(len(order), 1)
            placed.append((order.get(_node(layer), even), layer))
    in_order = [layer for _, layer in sorted(placed, key=itemgetter(0))]
    worst = [layer.label for layer in diagnosis.worst(WORST)]
    return tuple(_row(layer, i, worst) for i, layer in enumerate(in_order))


def layers_figure(variant: str, diagnosis: Diagnosis, rows: tuple[LayerRow, ...]) -> dict[str, Any]:
    """The points, the line under which a tensor counts as bad, and a text that names the worst.

    Args:
        variant: name of the row.
        diagnosis: of that variant.
        rows: from `layer_rows`.
    """
    worst = ", ".join(f"{layer.label} {db_text(layer.alone)}" for layer in diagnosis.worst(_NAMED))
    alt = (
        f"SQNR of {len(diagnosis.tensors)} tensors and {len(diagnosis.kernels)} kernels of {variant}, in the order of "
        f"the graph. The worst: {worst}. A table of all follows."
    )
    return {"variant": variant, "points": [row.point for row in rows], "bad": _BAD_DB, "alt": alt}


def _order(placement: Placement) -> dict[str, int]:
    """{node, or layer of a node that is called several times: its place in the graph}."""
    nodes = [node for kernel in placement.kernels for node in kernel.nodes]
    layers = {node.partition("#")[0]: i for i, node in reversed(list(enumerate(nodes)))}
    return layers | {node: i for i, node in enumerate(nodes)}


def _node(layer: TensorDiagnosis | KernelDiagnosis) -> str:
    return layer.producer if isinstance(layer, TensorDiagnosis) else layer.name


def _row(layer: TensorDiagnosis | KernelDiagnosis, place: int, worst: list[str]) -> LayerRow:
    alone = db_text(layer.alone)
    tensor, cumulative, text = None, None, f"{layer.label}\nalone {alone}"
    cells = (layer.label, alone, "–", "–", "–")
    if isinstance(layer, TensorDiagnosis):
        tensor, cumulative, saturated = layer.name, layer.cumulative, percent(layer.saturated)
        text += f"\ncumulative {db_text(cumulative)}\n{saturated} saturate"
        cells = (layer.label, alone, db_text(cumulative), saturated, f"{layer.amax:.4g}")
    point = {
        "place": place,
        "label": layer.label,
        "kind": "kernel" if tensor is None else "tensor",
        "tensor": tensor,
        "alone": drawable(layer.alone),
        "cumulative": drawable(cumulative),
        "worst": worst.index(layer.label) if layer.label in worst else None,
        "text": text,
    }
    return LayerRow(tensor, point, cells)


def tensor_views(files: RunFiles) -> list[dict[str, Any]]:
    """What the explorer shows of each tensor, in the order of the graph; nothing without ranges."""
    if files.ranges is None:
        return []
    diagnosed = {
        variant: {tensor.name: tensor for tensor in file.diagnosis.tensors} for variant, file in files.diagnoses.items()
    }
    if files.placement is None:
        return [_tensor_view(name, None, files.ranges, diagnosed) for name in files.ranges]
    known = [tensor for tensor in files.placement.tensors if tensor.range_of in files.ranges]
    return [_tensor_view(tensor.tensor, tensor, files.ranges, diagnosed) for tensor in known]


def _tensor_view(
    name: str,
    tensor: QuantizedTensor | None,
    ranges: Mapping[str, TensorRange],
    diagnosed: Mapping[str, Mapping[str, TensorDiagnosis]],
) -> dict[str, Any]:
    calibrated = ranges[name if tensor is None else tensor.range_of]
    amax, summary = f"{calibrated.amax:.4g}", calibrated.summary or {}
    facts = [("Range", f"{amax}, by {calibrated.method} on {calibrated.images} images")]
    if tensor is not None:
        facts += [("Scale", f"{calibrated.amax / tensor.spec.q_max:.4g}"), ("Integers", describe_spec(tensor.spec))]
        if tensor.range_of != tensor.tensor:
            facts.append(("Shares the range of", tensor.range_of))
    facts += [(f"Magnitude, {key}", f"{value:.4g}") for key, value in summary.items()]
    for variant, tensors in diagnosed.items():
        if name in tensors:
            facts += _tensor_facts(variant, tensors[name], amax)
    largest = summary.get("max")
    marks = f"largest magnitude {largest:.4g}, clip {amax}" if largest else f"clip {amax}"
    return {
        "name": name,
        "facts": facts,
        "clip": drawable(calibrated.amax),
        "clip_label": f"clip {amax}",
        "largest": largest,
        "histogram": calibrated.histogram if largest and calibrated.histogram else None,
        "alt": f"Histogram of the magnitudes of {name}, shares on a logarithmic axis: {marks}.",
    }


def _tensor_facts(variant: str, tensor: TensorDiagnosis, calibrated: str) -> list[tuple[str, str]]:
    """What a diagnosis says of a tensor, with its range where fine-tuning moved that."""
    facts = [
        (f"SQNR alone, {variant}", db_text(tensor.alone)),
        (f"SQNR cumulative, {variant}", db_text(tensor.cumulative)),
        (f"Saturated, {variant}", percent(tensor.saturated)),
    ]
    amax = f"{tensor.amax:.4g}"
    return facts if amax == calibrated else [(f"Range, {variant}", amax), *facts]


def graph_view(files: RunFiles) -> dict[str, Any] | None:
    """The boxes and arrows of `picture`, in order of flow; `None` without a placement.

    The box of a Q/DQ pair also has the tensor that it quantizes. Each box has the SQNR of its tensor or kernel, alone.
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
    sqnrs = {} if first is None else _sqnrs(placement, first.diagnosis)
    tensors = {f"q{i}": tensor.tensor for i, tensor in enumerate(placement.tensors)}
    boxes = [
        {
            **asdict(box),
            "tensor": tensors.get(box.key),
            "cost": db_text(sqnrs[box.key]) if box.key in sqnrs else None,
            "bad": sqnrs.get(box.key, _BAD_DB) < _BAD_DB,
        }
        for box in _in_flow(drawn)
    ]
    arrows = [
        {
            "source": arrow.source,
            "sink": arrow.sink,
            "quantized": arrow.flowing is Flowing.QUANTIZED,
            "tooltip": arrow.tooltip,
        }
        for arrow in drawn.arrows
    ]
    alt = f"{drawn.title}: {len(boxes)} boxes and {len(arrows)} arrows. {counts}"
    return {"boxes": boxes, "arrows": arrows, "counts": counts, "alt": alt}


def _in_flow(drawn: Picture) -> list[Any]:
    """The boxes with each Q/DQ pair behind the kernel that makes its tensor, as a reader goes through them."""
    pairs = {box.key: box for box in drawn.boxes if box.pair}
    made = {arrow.sink: arrow.source for arrow in drawn.arrows if arrow.sink in pairs}
    ordered = []
    for box in drawn.boxes:
        if not box.pair:
            ordered += [box, *(pairs[key] for key, source in made.items() if source == box.key)]
    return ordered + [box for key, box in pairs.items() if key not in made]


def _sqnrs(placement: Placement, diagnosis: Diagnosis) -> dict[str, float]:
    """{key of a box: the SQNR of its tensor or kernel alone, in dB}."""
    tensors = {tensor.name: tensor.alone for tensor in diagnosis.tensors}
    kernels = {kernel.name: kernel.alone for kernel in diagnosis.kernels}
    pairs = {f"q{i}": tensors.get(tensor.tensor) for i, tensor in enumerate(placement.tensors)}
    layers = {f"n{i}": kernels.get(kernel.nodes[0].partition("#")[0]) for i, kernel in enumerate(placement.kernels)}
    return {key: sqnr for key, sqnr in {**pairs, **layers}.items() if sqnr is not None}


def _counts(placement: Placement) -> str:
    quantized = len(placement.quantized_edges)
    kernels = sum(weight.spec is not None for weight in placement.weights)
    return (
        f"{quantized} of {len(placement.edges)} edges are quantized, by {len(placement.tensors)} Q/DQ pairs; "
        f"{kernels} of {len(placement.weights)} kernels hold integers."
    )
