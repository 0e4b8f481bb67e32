"""Inputs of nodes, of which a malformed file may have too few."""

import onnx_ir as ir


def input_at(node: ir.Node, index: int) -> ir.Value | None:
    """An input; `None` where the node has none there: optional, or missing in a file that isn't valid.

    Example:
        >>> input_at(ir.node("Relu", []), 0) is None
        True
    """
    return node.inputs[index] if index < len(node.inputs) else None
