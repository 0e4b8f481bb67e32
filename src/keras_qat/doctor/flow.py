"""Ways through a file: the pair above a tensor, the operation above that, and what reads a tensor below."""

from collections.abc import Iterator

import onnx_ir as ir

from keras_qat.doctor.node_inputs import input_at
from keras_qat.doctor.operations import ACTIVATIONS, CONVOLUTIONS, moves

_PRECISION_PRESERVED = frozenset({"MaxPool", "GlobalMaxPool"})
"""What engines run on integers by moving the dequantization past it."""


def pair_above(value: ir.Value) -> ir.Node | None:
    """The DequantizeLinear that a tensor comes from, seen through moves, max-pools and concatenations of pairs."""
    node = value.producer()
    first = None if node is None else input_at(node, 0)
    if node is None or first is None:
        return None
    if node.op_type == "DequantizeLinear":
        return node
    if node.op_type == "Concat":
        above = [pair_above(one) for one in node.inputs if one is not None]
        return above[0] if all(pair is not None for pair in above) else None
    return pair_above(first) if moves(node) or node.op_type in _PRECISION_PRESERVED else None


def made_by(value: ir.Value) -> ir.Node | None:
    """The node that computes a tensor, seen through moves and Q/DQ pairs."""
    node = value.producer()
    while node is not None and (moves(node) or node.op_type in {"QuantizeLinear", "DequantizeLinear"}):
        above = input_at(node, 0)
        node = None if above is None else above.producer()
    return node


def readers(value: ir.Value) -> Iterator[ir.Node | None]:
    """What reads a tensor, seen through moves; `None` where it leaves the file."""
    if value.is_graph_output():
        yield None
    for use in value.uses():
        if moves(use.node) and use.idx == 0 and use.node.outputs:
            yield from readers(use.node.outputs[0])
        else:
            yield use.node


def fused_output(node: ir.Node) -> tuple[ir.Value, ir.Node | None]:
    """The tensor that a node makes together with the ReLU or Clip that alone reads it, and that activation."""
    output = node.outputs[0]
    below = list(readers(output))
    if len(below) == 1 and below[0] is not None and below[0].op_type in ACTIVATIONS and below[0].outputs:
        return below[0].outputs[0], below[0]
    return output, None


def quantizers(value: ir.Value) -> list[ir.Node] | None:
    """The QuantizeLinear nodes that read a tensor; `None` if anything else does, or nothing."""
    below = list(readers(value))
    chosen = [node for node in below if node is not None and node.op_type == "QuantizeLinear"]
    return chosen if chosen and len(chosen) == len(below) else None


def conv_branch(value: ir.Value) -> bool:
    """Whether a tensor is a convolution's result that nothing else reads, in float or through a pair of its own."""
    node = made_by(value)
    return node is not None and node.op_type in CONVOLUTIONS and len(list(readers(node.outputs[0]))) == 1
