"""A picture as a Mermaid flowchart (https://mermaid.js.org/syntax/flowchart.html)."""

from keras_qat.placement.picture import Arrow, Box, Flowing, Picture

_CLASSES = (
    "classDef pair fill:#2e7d32,color:#fff,stroke:#2e7d32",
    "classDef integer fill:#e8f5e9,color:#000,stroke:#2e7d32",
    "classDef float fill:#fff,color:#000,stroke:#9e9e9e",
)

_ARROWS = {Flowing.QUANTIZED: "stroke:#2e7d32", Flowing.FLOAT: "stroke:#9e9e9e"}


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
    lines = [f"accTitle: {picture.title}", *map(_node, picture.boxes)]
    for arrow in picture.arrows:
        lines += [f"%% {' '.join(arrow.tooltip.split())}", _edge(arrow)]
    for flowing, look in _ARROWS.items():
        numbers = [str(i) for i, arrow in enumerate(picture.arrows) if arrow.flowing is flowing]
        if numbers:
            lines.append(f"linkStyle {','.join(numbers)} {look}")
    return "\n".join(["flowchart TD", *(f"  {line}" for line in (*lines, *_CLASSES))])


def _node(box: Box) -> str:
    text = "<br/>".join(map(_escaped, box.lines))
    shape = f'(["{text}"])' if box.pair else f'["{text}"]'
    return f"{box.key}{shape}:::{'pair' if box.pair else 'integer' if box.integer else 'float'}"


def _edge(arrow: Arrow) -> str:
    return f"{arrow.source} --> {arrow.sink}"


def _escaped(text: str) -> str:
    """Mermaid's entity codes for what would end the text; `#` starts such a code."""
    return text.replace("#", "#35;").replace('"', "#quot;").replace("<", "#lt;").replace(">", "#gt;")
