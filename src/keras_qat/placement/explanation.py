"""How a quantized tensor reads in a table or a picture.

A placement as boxes and arrows, for whoever draws them: a box for each kernel, one for each Q/DQ pair.

A picture as Graphviz DOT text (https://graphviz.org/doc/info/lang.html).

A picture as a Mermaid flowchart (https://mermaid.js.org/syntax/flowchart.html).

A placement as a Markdown table: one line for each edge and each weighted layer.

A placement that a human can read: every edge and every layer with its reason, as a table or a picture.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Literal

from keras_qat.errors import UserError
from keras_qat.graph import OUTPUT
from keras_qat.placement.flow import MOVES_NUMBERS
from keras_qat.types import EdgeDecision, Kernel, Placement, QuantizedTensor, QuantSpec, TensorRange

_NAMED = 3
"""So many names are enough to see what is amiss."""


def describe_spec(spec: QuantSpec) -> str:
    """The integers of a spec.

    Example:
        >>> describe_spec(QuantSpec(storage="uint8", signed=False)), describe_spec(QuantSpec(bits=4, axis=3))
        ('uint8 zero-point 0', 'int8 zero-point 0 in 4 bits per channel (axis 3)')
    """
    channel = "" if spec.axis is None else f" per channel (axis {spec.axis})"
    width = "" if spec.bits == 8 else f" in {spec.bits} bits"  # noqa: PLR2004
    return f"{spec.storage} zero-point {spec.zero_point}{width}{channel}"


def describe_scale(tensor: QuantizedTensor, ranges: Mapping[str, TensorRange]) -> str:
    """The scale s = amax / q_max, to four digits.

    Example:
        >>> tensor = QuantizedTensor("relu", QuantSpec(), range_of="relu")
        >>> describe_scale(tensor, {"relu": TensorRange(amax=6.35, method="mse", images=256)})
        '0.05'
    """
    return f"{ranges[tensor.range_of].amax / tensor.spec.q_max:.4g}"


def require_ranges(placement: Placement, ranges: Mapping[str, TensorRange]) -> None:
    """Refuse ranges of another placement.

    Raises:
        UserError: a quantized tensor has none; the first few are named.
    """
    missing = [name for name in placement.observed if name not in ranges]
    if missing:
        more = " …" if len(missing) > _NAMED else ""
        raise UserError(
            f"{len(missing)} quantized tensors have no range. Received: ranges of {len(ranges)} tensors, none of "
            f"{', '.join(map(repr, missing[:_NAMED]))}{more}. "
            "Calibrate the same model with the same target and overrides."
        )


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


_DOT_ARROWS = {Flowing.QUANTIZED: "#2e7d32", Flowing.FLOAT: "#9e9e9e"}


def dot(picture: Picture) -> str:
    """The picture as DOT; reasons are tooltips, which `dot -Tsvg` keeps.

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
    look = ', fillcolor="#e8f5e9"' if box.integer else ""
    if box.pair:
        look = ', fillcolor="#2e7d32", fontcolor="white", fontsize=8, margin="0.05,0.02", height=0.2'
    tooltip = f", tooltip={_quoted(box.tooltip)}" if box.tooltip else ""
    return f"{box.key} [label={_quoted(chr(10).join(box.lines))}{tooltip}{look}]"


def _dot_edge(arrow: Arrow) -> str:
    color = _DOT_ARROWS[arrow.flowing]
    return f'{arrow.source} -> {arrow.sink} [color="{color}", tooltip={_quoted(arrow.tooltip)}]'


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


_CLASSES = (
    "classDef pair fill:#2e7d32,color:#fff,stroke:#2e7d32",
    "classDef integer fill:#e8f5e9,color:#000,stroke:#2e7d32",
    "classDef float fill:#fff,color:#000,stroke:#9e9e9e",
)

_MERMAID_ARROWS = {Flowing.QUANTIZED: "stroke:#2e7d32", Flowing.FLOAT: "stroke:#9e9e9e"}


def mermaid(picture: Picture) -> str:
    """The picture as Mermaid text.

    Mermaid has no tooltips for arrows, so the reason of each stands in a comment above it.

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
        lines += [f"%% {' '.join(arrow.tooltip.split())}", _mermaid_edge(arrow)]
    for flowing, look in _MERMAID_ARROWS.items():
        numbers = [str(i) for i, arrow in enumerate(picture.arrows) if arrow.flowing is flowing]
        if numbers:
            lines.append(f"linkStyle {','.join(numbers)} {look}")
    return "\n".join(["flowchart TD", *(f"  {line}" for line in (*lines, *_CLASSES))])


def _mermaid_node(box: Box) -> str:
    text = "<br/>".join(map(_escaped, box.lines))
    shape = f'(["{text}"])' if box.pair else f'["{text}"]'
    return f"{box.key}{shape}:::{'pair' if box.pair else 'integer' if box.integer else 'float'}"


def _mermaid_edge(arrow: Arrow) -> str:
    return f"{arrow.source} --> {arrow.sink}"


def _escaped(text: str) -> str:
    """Mermaid's entity codes for what would end the text; `#` starts such a code."""
    return text.replace("#", "#35;").replace('"', "#quot;").replace("<", "#lt;").replace(">", "#gt;")


def table(placement: Placement, ranges: Mapping[str, TensorRange] | None) -> str:
    """What flows where, the integer type or `float`, the scale if there are ranges, and why."""
    tensors = {tensor.tensor: tensor for tensor in placement.tensors}
    rows = [("from → to", "type", "scale", "reason"), ("---", "---", "---", "---")]
    for edge in placement.edges:
        tensor = tensors[edge.tensor] if edge.quantized else None
        kind = "float" if tensor is None else describe_spec(tensor.spec)
        scale = "" if tensor is None or ranges is None else describe_scale(tensor, ranges)
        rows.append((f"{edge.tensor} → {edge.consumer}[{edge.index}]", kind, scale, edge.reason))
    for weight in placement.weights:
        kind = "float" if weight.spec is None else describe_spec(weight.spec)
        rows.append((f"weights of {weight.layer}", kind, "", weight.reason))
    shown = rows if ranges is not None else [(where, kind, reason) for where, kind, _, reason in rows]
    return "\n".join(f"| {' | '.join(map(_cell, row))} |" for row in shown)


def _cell(text: str) -> str:
    """Text that stays in its cell."""
    return " ".join(text.replace("|", "\\|").split())


Format = Literal["table", "mermaid", "dot"]

_Writer = Callable[[Placement, Mapping[str, TensorRange] | None], str]

_WRITERS: Mapping[str, _Writer] = {
    "table": table,
    "mermaid": lambda placement, ranges: mermaid(picture(placement, ranges)),
    "dot": lambda placement, ranges: dot(picture(placement, ranges)),
}


def explain(
    placement: Placement,
    *,
    format: Format = "table",  # noqa: A002
    ranges: Mapping[str, TensorRange] | None = None,
) -> str:
    """Say where the Q/DQ pairs stand, and why.

    Args:
        placement: from `plan`.
        format: `"table"`: Markdown, one line for each edge and each weighted layer. `"mermaid"`: a flowchart that
            GitHub and many Markdown viewers draw. `"dot"`: the same for Graphviz, with the reasons as tooltips.
        ranges: from `calibrate`, to show the scale of each quantized tensor.

    Returns:
        The text.

    Raises:
        UserError: the format is unknown, or a quantized tensor has no range.

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
