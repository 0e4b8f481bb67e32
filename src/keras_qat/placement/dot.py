"""A picture as Graphviz DOT text (https://graphviz.org/doc/info/lang.html)."""

from keras_qat.placement.picture import Arrow, Box, Flowing, Picture

_ARROWS = {Flowing.QUANTIZED: "#2e7d32", Flowing.FLOAT: "#9e9e9e"}


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
        *map(_node, picture.boxes),
        *map(_edge, picture.arrows),
    ]
    return "\n".join(["digraph {", *(f"  {line}" for line in lines), "}"])


def _node(box: Box) -> str:
    look = ', fillcolor="#e8f5e9"' if box.integer else ""
    if box.pair:
        look = ', fillcolor="#2e7d32", fontcolor="white", fontsize=8, margin="0.05,0.02", height=0.2'
    tooltip = f", tooltip={_quoted(box.tooltip)}" if box.tooltip else ""
    return f"{box.key} [label={_quoted(chr(10).join(box.lines))}{tooltip}{look}]"


def _edge(arrow: Arrow) -> str:
    return f'{arrow.source} -> {arrow.sink} [color="{_ARROWS[arrow.flowing]}", tooltip={_quoted(arrow.tooltip)}]'


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
