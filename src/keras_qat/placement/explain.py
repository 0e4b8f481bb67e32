"""A placement as a table that a human can read: every edge and every layer with its reason."""

from keras_qat.types import Placement, QuantSpec


def explain(placement: Placement) -> str:
    """One line for each edge and each weighted layer.

    Args:
        placement: from `plan`.

    Returns:
        Markdown: what flows where, the integer type or `float`, and why.

    Example:
        >>> print(explain(Placement("tensorrt", (), (), ())))
        | from → to | type | reason |
        | --- | --- | --- |
    """
    specs = placement.specs
    rows = [("from → to", "type", "reason"), ("---", "---", "---")]
    for edge in placement.edges:
        kind = _describe(specs[edge.tensor]) if edge.quantized else "float"
        rows.append((f"{edge.tensor} → {edge.consumer}[{edge.index}]", kind, edge.reason))
    for weight in placement.weights:
        kind = "float" if weight.spec is None else _describe(weight.spec)
        rows.append((f"weights of {weight.layer}", kind, weight.reason))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _describe(spec: QuantSpec) -> str:
    channel = "" if spec.axis is None else f" per channel (axis {spec.axis})"
    width = "" if spec.bits == 8 else f" in {spec.bits} bits"  # noqa: PLR2004
    return f"{spec.storage} zero-point {spec.zero_point}{width}{channel}"
