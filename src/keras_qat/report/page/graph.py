"""The placement as the page draws it: the boxes and arrows of `picture`, with what a diagnosis says of them."""

from dataclasses import asdict
from typing import Any

from keras_qat.evaluation import Diagnosis
from keras_qat.placement.picture import Arrow, Flowing, Picture, picture
from keras_qat.report.page.layers import BAD_DB
from keras_qat.report.page.numbers import db_text
from keras_qat.report.run_files import RunFiles
from keras_qat.types import Placement


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
