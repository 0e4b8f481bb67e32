"""A placement as a Markdown table: one line for each edge and each weighted layer."""

from collections.abc import Mapping

from keras_qat.placement.describe import describe_scale, describe_spec
from keras_qat.types import Placement, TensorRange


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
