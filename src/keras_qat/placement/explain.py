"""A placement that a human can read: every edge and every layer with its reason, as a table or a picture."""

from collections.abc import Callable, Mapping
from typing import Literal

from keras_qat.errors import UserError
from keras_qat.placement.describe import require_ranges
from keras_qat.placement.dot import dot
from keras_qat.placement.mermaid import mermaid
from keras_qat.placement.picture import picture
from keras_qat.placement.table import table
from keras_qat.types import Placement, TensorRange

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
