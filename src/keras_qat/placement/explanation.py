"""A placement for people: every edge and layer with its reason, as a Markdown table or a picture.

A picture is a list of boxes and arrows: a box for each kernel and one for each Q/DQ pair. It is written as Graphviz DOT
text (https://graphviz.org/doc/info/lang.html) or as a Mermaid flowchart (https://mermaid.js.org/syntax/flowchart.html).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Literal

from keras_qat.errors import UserError
from keras_qat.graph import OUTPUT
from keras_qat.placement.flow import MOVES_NUMBERS
from keras_qat.text import first_few, markdown_cell, one_line
from keras_qat.types import BITS, EdgeDecision, Kernel, Placement, QuantizedTensor, QuantSpec, TensorRange

Format = Literal["table", "mermaid", "dot"]


class Flowing(Enum):
    """The values on an arrow: `QUANTIZED` ones lie on the integer grid, also behind operations that only move them."""

    QUANTIZED = "quantized"
    FLOAT = "float"


_GREEN, _LIGHT_GREEN, _GREY = "#2e7d32", "#e8f5e9", "#9e9e9e"

_COLORS = {Flowing.QUANTIZED: _GREEN, Flowing.FLOAT: _GREY}

_MERMAID_CLASSES = (
    f"classDef pair fill:{_GREEN},color:#fff,stroke:{_GREEN}",
    f"classDef integer fill:{_LIGHT_GREEN},color:#000,stroke:{_GREEN}",
    f"classDef float fill:#fff,color:#000,stroke:{_GREY}",
)


def explain(
    placement: Placement,
    *,
    format: Format = "table",  # noqa: A002
    ranges: Mapping[str, TensorRange] | None = None,
) -> str:
    """Show where the Q/DQ pairs stand, and why.

    Args:
        placement: from `plan`.
        format: `"table"`: Markdown, one row for each edge and each layer with a kernel. `"mermaid"`: a flowchart that
            GitHub and many Markdown viewers draw. `"dot"`: the same for Graphviz, with the reasons as tooltips.
        ranges: from `calibrate`, to show the scale of each quantized tensor.

    Returns:
        The text.

    Raises:
        UserError: If the format is unknown, or a quantized tensor has no range in `ranges`.

    Example:
        >>> print(explain(Placement("tensorrt", (), (), ())))
        | from → to | type | reason |
        | --- | --- | --- |
    """
    if format not in _WRITERS:
        raise UserError(f"Unknown format. Received: format={format!r}. Choose one of: {', '.join(_WRITERS)}.")
    if ranges is not None:
        require_ranges(placement, ranges)
    return _WRITERS[format](placement, ranges)


def require_ranges(placement: Placement, ranges: Mapping[str, TensorRange]) -> None:
    """Check that every quantized tensor has a range.

    Args:
        placement: from `plan`.
        ranges: from `calibrate`, by the name of the tensor.

    Raises:
        UserError: If a range is missing, as in the ranges of another placement; the message names the first three.
    """
    missing = [name for name in placement.observed if name not in ranges]
    if missing:
        raise UserError(
            f"{len(missing)} quantized tensors have no range. Received: ranges of {len(ranges)} tensors, none of "
            f"{first_few(map(repr, missing), most=3)}. Calibrate the same model with the same target and overrides."
        )


def table(placement: Placement, ranges: Mapping[str, TensorRange] | None) -> str:
    """A Markdown table of all edges and kernels: integer type or `float`, scale if ranges are given, and reason."""
    tensors = {tensor.tensor: tensor for tensor in placement.tensors}
    rows = [("from → to", "type", "scale", "reason"), ("---", "---", "---", "---")]
    for edge in placement.edges:
        tensor = tensors[edge.tensor] if edge.quantized else None
        integers = "float" if tensor is None else describe_spec(tensor.spec)
        scale = "" if tensor is None or ranges is None else describe_scale(tensor, ranges)
        rows.append((f"{edge.tensor} → {edge.consumer}[{edge.index}]", integers, scale, edge.reason))
    for weight in placement.weights:
        integers = "float" if weight.spec is None else describe_spec(weight.spec)
        rows.append((f"weights of {weight.layer}", integers, "", weight.reason))
    shown = rows if ranges is not None else [(where, integers, reason) for where, integers, _, reason in rows]
    return "\n".join(f"| {' | '.join(map(markdown_cell, row))} |" for row in shown)


def describe_spec(spec: QuantSpec) -> str:
    """The integers of a spec, in words.

    Example:
        >>> describe_spec(QuantSpec(storage="uint8", signed=False)), describe_spec(QuantSpec(bits=4, axis=3))
        ('uint8 zero-point 0', 'int8 zero-point 0 in 4 bits per channel (axis 3)')
    """
    channel = "" if spec.axis is None else f" per channel (axis {spec.axis})"
    width = "" if spec.bits == max(BITS) else f" in {spec.bits} bits"
    return f"{spec.storage} zero-point {spec.zero_point}{width}{channel}"


def describe_scale(tensor: QuantizedTensor, ranges: Mapping[str, TensorRange]) -> str:
    """The scale s = amax / q_max of a tensor, to four significant digits.

    Example:
        >>> tensor = QuantizedTensor("relu", QuantSpec(), range_of="relu")
        >>> describe_scale(tensor, {"relu": TensorRange(amax=6.35, method="mse", images=256)})
        '0.05'
    """
    return f"{ranges[tensor.range_of].amax / tensor.spec.q_max:.4g}"


@dataclass(frozen=True)
class Box:
    """A kernel, a Q/DQ pair, or the model's output.

    Args:
        key: unique in the picture.
        lines: the text in the box.
        tooltip: the reasons, one per line.
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
    """The flow of a tensor from one box to another.

    Args:
        source: key of the box in which it starts.
        sink: key of the box in which it ends.
        flowing: whether the values are quantized.
        tooltip: why.
    """

    source: str
    sink: str
    flowing: Flowing
    tooltip: str


@dataclass(frozen=True)
class Picture:
    """A placement as boxes and arrows, both in topological order."""

    title: str
    boxes: tuple[Box, ...]
    arrows: tuple[Arrow, ...]


def picture(placement: Placement, ranges: Mapping[str, TensorRange] | None) -> Picture:
    """The boxes and arrows of a placement.

    Args:
        placement: from `plan`.
        ranges: from `calibrate`, one for each quantized tensor, to show scales; `None` before calibration.
    """
    kernel_of = {name: kernel for kernel in placement.kernels for name in kernel.nodes}
    _require_kernels(placement, kernel_of)
    keys = {id(kernel): f"n{i}" for i, kernel in enumerate(placement.kernels)}
    pairs = {tensor.tensor: f"q{i}" for i, tensor in enumerate(placement.tensors)}
    on_grid: set[int] = set()
    boxes = [_kernel_box(placement, kernel, keys[id(kernel)]) for kernel in placement.kernels]
    boxes += [_pair_box(tensor, ranges, pairs[tensor.tensor]) for tensor in placement.tensors]
    arrows: list[Arrow] = []
    drawn: set[str] = set()
    for edge in placement.edges:
        source = kernel_of[_producer(edge, kernel_of)]
        sink = None if edge.consumer == OUTPUT else kernel_of[edge.consumer]
        if sink is source:
            continue
        start = keys[id(source)]
        flowing = Flowing.QUANTIZED if edge.quantized or id(source) in on_grid else Flowing.FLOAT
        if edge.quantized:
            if edge.tensor not in drawn:
                arrows.append(Arrow(start, pairs[edge.tensor], Flowing.QUANTIZED, f"{edge.tensor}: made in float"))
                drawn.add(edge.tensor)
            start = pairs[edge.tensor]
        arrows.append(Arrow(start, "output" if sink is None else keys[id(sink)], flowing, _tooltip(edge)))
        if sink is not None and flowing is Flowing.QUANTIZED and sink.kinds[0] in MOVES_NUMBERS:
            on_grid.add(id(sink))
    if any(edge.consumer == OUTPUT for edge in placement.edges):
        boxes.append(Box("output", ("output",)))
    return Picture(f"Q/DQ placement for {placement.target}", tuple(boxes), tuple(arrows))


def _producer(edge: EdgeDecision, kernel_of: Mapping[str, Kernel]) -> str:
    """The name of the node that makes an edge's tensor; its outputs after the first are named NODE:1 and so on."""
    return edge.tensor if edge.tensor in kernel_of else edge.tensor.rpartition(":")[0]


def _require_kernels(placement: Placement, kernel_of: Mapping[str, Kernel]) -> None:
    """Refuse a placement with an edge between nodes that no kernel holds, as a file that was edited may have."""
    for edge in placement.edges:
        ends = {edge.tensor: _producer(edge, kernel_of), edge.consumer: edge.consumer}
        unknown = [name for name, node in ends.items() if node not in kernel_of and name != OUTPUT]
        if unknown:
            raise UserError(
                f"The placement has no kernel with the node of an edge. Received: {unknown[0]!r}, of the edge "
                f"{edge.tensor!r} → {edge.consumer!r}. Plan it again, or give the placement.json of a run as it was."
            )


def _kernel_box(placement: Placement, kernel: Kernel, key: str) -> Box:
    weights = [weight for weight in placement.weights if weight.layer == kernel.nodes[0].partition("#")[0]]
    names = [f"{name} ({kind})" for name, kind in zip(kernel.nodes, kernel.kinds, strict=True)]
    return Box(
        key,
        (*names, *(f"{'float' if w.spec is None else f'int{w.spec.bits}'} weights" for w in weights)),
        "\n".join(weight.reason for weight in weights),
        integer=any(weight.spec is not None for weight in weights),
    )


def _pair_box(tensor: QuantizedTensor, ranges: Mapping[str, TensorRange] | None, key: str) -> Box:
    scale = () if ranges is None else (f"scale {describe_scale(tensor, ranges)}",)
    shared = "" if tensor.range_of == tensor.tensor else f", with the range of {tensor.range_of}"
    return Box(key, (describe_spec(tensor.spec), *scale), f"Q/DQ of {tensor.tensor}{shared}", pair=True)


def _tooltip(edge: EdgeDecision) -> str:
    return f"{edge.tensor} → {edge.consumer}[{edge.index}]: {edge.reason}"


def dot(picture: Picture) -> str:
    """A picture as DOT text; the reasons are tooltips, which `dot -Tsvg` keeps.

    Example:
        >>> print(dot(Picture("empty", (), ())))
        digraph {
          graph [tooltip="empty", fontname="Helvetica"]
          node [shape=box, style="rounded,filled", fillcolor="white", fontname="Helvetica", fontsize=10]
          edge [fontname="Helvetica", penwidth=1.5]
        }
    """
    lines = [
        f'graph [tooltip={_quoted(picture.title)}, fontname="Helvetica"]',
        'node [shape=box, style="rounded,filled", fillcolor="white", fontname="Helvetica", fontsize=10]',
        'edge [fontname="Helvetica", penwidth=1.5]',
        *map(_dot_node, picture.boxes),
        *map(_dot_edge, picture.arrows),
    ]
    return "\n".join(["digraph {", *(f"  {line}" for line in lines), "}"])


def _dot_node(box: Box) -> str:
    look = f', fillcolor="{_LIGHT_GREEN}"' if box.integer else ""
    if box.pair:
        look = f', fillcolor="{_GREEN}", fontcolor="white", fontsize=8, margin="0.05,0.02", height=0.2'
    tooltip = f", tooltip={_quoted(box.tooltip)}" if box.tooltip else ""
    return f"{box.key} [label={_quoted(chr(10).join(box.lines))}{tooltip}{look}]"


def _dot_edge(arrow: Arrow) -> str:
    return f'{arrow.source} -> {arrow.sink} [color="{_COLORS[arrow.flowing]}", tooltip={_quoted(arrow.tooltip)}]'


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def mermaid(picture: Picture) -> str:
    """A picture as Mermaid text; arrows have no tooltips there, so a comment above each arrow gives its reason.

    Example:
        >>> print(mermaid(Picture("one", (Box("n0", ("conv (conv)",), integer=True),), ())))
        flowchart TD
          accTitle: one
          n0["conv (conv)"]:::integer
          classDef pair fill:#2e7d32,color:#fff,stroke:#2e7d32
          classDef integer fill:#e8f5e9,color:#000,stroke:#2e7d32
          classDef float fill:#fff,color:#000,stroke:#9e9e9e
    """
    lines = [f"accTitle: {picture.title}", *map(_mermaid_node, picture.boxes)]
    for arrow in picture.arrows:
        lines += [f"%% {one_line(arrow.tooltip)}", f"{arrow.source} --> {arrow.sink}"]
    for flowing, color in _COLORS.items():
        numbers = [str(i) for i, arrow in enumerate(picture.arrows) if arrow.flowing is flowing]
        if numbers:
            lines.append(f"linkStyle {','.join(numbers)} stroke:{color}")
    return "\n".join(["flowchart TD", *(f"  {line}" for line in (*lines, *_MERMAID_CLASSES))])


def _mermaid_node(box: Box) -> str:
    text = "<br/>".join(map(_escaped, box.lines))
    shape = f'(["{text}"])' if box.pair else f'["{text}"]'
    return f"{box.key}{shape}:::{'pair' if box.pair else 'integer' if box.integer else 'float'}"


def _escaped(text: str) -> str:
    """Mermaid's entity codes for characters that end a text; `#` starts such a code."""
    return text.replace("#", "#35;").replace('"', "#quot;").replace("<", "#lt;").replace(">", "#gt;")


_WRITERS: Mapping[str, Callable[[Placement, Mapping[str, TensorRange] | None], str]] = {
    "table": table,
    "mermaid": lambda placement, ranges: mermaid(picture(placement, ranges)),
    "dot": lambda placement, ranges: dot(picture(placement, ranges)),
}


def why_nothing(planned: Placement) -> str | None:
    """Why a placement quantizes nothing, in a sentence; `None` if it quantizes a tensor or a kernel.

    Args:
        planned: the placement.

    Example:
        >>> why_nothing(Placement("tensorrt", (), (EdgeDecision("x", "relu", 0, False, "nothing to gain"),), ()))
        'Nothing is quantized for tensorrt: 0 Q/DQ pairs, 0 kernels. relu: nothing to gain.'
    """
    if planned.tensors or any(decision.spec is not None for decision in planned.weights):
        return None
    kernels = {decision.layer: decision.reason for decision in planned.weights}
    edges = {edge.consumer: edge.reason for edge in planned.edges if edge.consumer != OUTPUT}
    reasons = {**edges, **kernels}
    listed = first_few((f"{name}: {reason}" for name, reason in reasons.items()), separator="; ")
    return f"Nothing is quantized for {planned.target}: 0 Q/DQ pairs, 0 kernels. {listed or 'The model has no layers'}."
