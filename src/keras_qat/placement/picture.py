"""A placement as boxes and arrows, for whoever draws them: a box for each kernel, one for each Q/DQ pair."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from keras_qat.graph import OUTPUT
from keras_qat.placement.describe import describe_scale, describe_spec
from keras_qat.placement.flow import MOVES_NUMBERS
from keras_qat.types import EdgeDecision, Kernel, Placement, QuantizedTensor, QuantSpec, TensorRange


class Flowing(Enum):
    """What flows along an arrow."""

    QUANTIZED = "quantized"
    """Numbers on the integer grid: to or from a pair, or behind one through operations that only move numbers."""
    FLOAT = "float"


@dataclass(frozen=True)
class Box:
    """A kernel, a Q/DQ pair, or the model's output.

    Args:
        key: unique in the picture.
        lines: what stands in it.
        tooltip: the reasons, one a line.
        pair: whether it is a Q/DQ pair.
        integer: whether it is a kernel with quantized weights.
    """

    key: str
    lines: tuple[str, ...]
    tooltip: str = ""
    pair: bool = False
    integer: bool = False


@dataclass(frozen=True)
class Arrow:
    """What flows from one box to another.

    Args:
        source: key of a box.
        sink: likewise.
        flowing: quantized or float.
        tooltip: why.
    """

    source: str
    sink: str
    flowing: Flowing
    tooltip: str


@dataclass(frozen=True)
class Picture:
    """All of it, in order of flow."""

    title: str
    boxes: tuple[Box, ...]
    arrows: tuple[Arrow, ...]


def picture(placement: Placement, ranges: Mapping[str, TensorRange] | None) -> Picture:
    """The boxes and arrows of a placement.

    Args:
        placement: from `plan`.
        ranges: from `calibrate`, one for each quantized tensor, to show scales; `None` before calibration.
    """
    home = {name: kernel for kernel in placement.kernels for name in kernel.nodes}
    keys = {id(kernel): f"n{i}" for i, kernel in enumerate(placement.kernels)}
    pairs = {tensor.tensor: f"q{i}" for i, tensor in enumerate(placement.tensors)}
    on_grid: set[int] = set()
    boxes = [_kernel_box(placement, kernel, keys[id(kernel)]) for kernel in placement.kernels]
    boxes += [_pair_box(tensor, ranges, pairs[tensor.tensor]) for tensor in placement.tensors]
    arrows: list[Arrow] = []
    drawn: set[str] = set()
    for edge in placement.edges:
        source = home[edge.tensor if edge.tensor in home else edge.tensor.rpartition(":")[0]]
        sink = None if edge.consumer == OUTPUT else home[edge.consumer]
        if sink is source:
            continue
        key = "output" if sink is None else keys[id(sink)]
        start = keys[id(source)]
        flowing = Flowing.QUANTIZED if edge.quantized or id(source) in on_grid else Flowing.FLOAT
        if edge.quantized:
            if edge.tensor not in drawn:
                arrows.append(Arrow(start, pairs[edge.tensor], Flowing.QUANTIZED, f"{edge.tensor}: made in float"))
                drawn.add(edge.tensor)
            start = pairs[edge.tensor]
        arrows.append(Arrow(start, key, flowing, _tooltip(edge)))
        if sink is not None and flowing is Flowing.QUANTIZED and sink.kinds[0] in MOVES_NUMBERS:
            on_grid.add(id(sink))
    if any(edge.consumer == OUTPUT for edge in placement.edges):
        boxes.append(Box("output", ("output",)))
    return Picture(f"Q/DQ placement for {placement.target}", tuple(boxes), tuple(arrows))


def _kernel_box(placement: Placement, kernel: Kernel, key: str) -> Box:
    weights = [weight for weight in placement.weights if weight.layer == kernel.nodes[0].partition("#")[0]]
    described = [f"{_integers(weight.spec)} weights" for weight in weights]
    names = [f"{name} ({kind})" for name, kind in zip(kernel.nodes, kernel.kinds, strict=True)]
    return Box(
        key,
        (*names, *described),
        "\n".join(weight.reason for weight in weights),
        integer=any(weight.spec is not None for weight in weights),
    )


def _pair_box(tensor: QuantizedTensor, ranges: Mapping[str, TensorRange] | None, key: str) -> Box:
    scale = () if ranges is None else (f"scale {describe_scale(tensor, ranges)}",)
    shared = "" if tensor.range_of == tensor.tensor else f", with the range of {tensor.range_of}"
    return Box(key, (describe_spec(tensor.spec), *scale), f"Q/DQ of {tensor.tensor}{shared}", pair=True)


def _integers(spec: QuantSpec | None) -> str:
    return "float" if spec is None else f"int{spec.bits}"


def _tooltip(edge: EdgeDecision) -> str:
    return f"{edge.tensor} → {edge.consumer}[{edge.index}]: {edge.reason}"
