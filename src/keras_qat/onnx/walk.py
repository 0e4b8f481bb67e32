"""Inputs of nodes, of which a malformed file may have too few.

Numbers that are stored in a file: as initializers, in Constant nodes, and beside it as external data.

ONNX nodes in the vocabulary of the targets: of what kind each is, what it computes with, what it only moves.

Ways through a file: the pair above a tensor, the operation above that, and what reads a tensor below.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from keras_qat.types import OpKind


def input_at(node: ir.Node, index: int) -> ir.Value | None:
    """An input; `None` where the node has none there: optional, or missing in a file that isn't valid.

    Example:
        >>> input_at(ir.node("Relu", []), 0) is None
        True
    """
    return node.inputs[index] if index < len(node.inputs) else None


def stored_tensor(value: ir.Value | None) -> ir.TensorProtocol | None:
    """The tensor behind a value, `None` for one that is computed or read.

    Example:
        >>> stored_tensor(ir.Value(const_value=ir.tensor([1, 2]))).shape.numpy()
        (2,)
    """
    while value is not None and value.const_value is None:
        node = value.producer()
        if node is None:
            return None
        if node.op_type == "Constant" and "value" in node.attributes:
            return node.attributes["value"].as_tensor()
        value = input_at(node, 0) if node.op_type == "Identity" else None
    return None if value is None else value.const_value


def present(tensor: ir.TensorProtocol) -> bool:
    """Whether the numbers can be read: external data may be missing or cut short.

    Example:
        >>> present(ir.tensor([1, 2]))
        True
    """
    if not isinstance(tensor, ir.ExternalTensor):
        return True
    path = Path(tensor.path)
    return path.is_file() and path.stat().st_size >= (tensor.offset or 0) + tensor.nbytes


def numbers(value: ir.Value | None) -> np.ndarray | None:
    """The stored numbers, `None` for a value that isn't stored, or whose data are missing.

    Example:
        >>> numbers(ir.Value(const_value=ir.tensor([1, 2])))
        array([1, 2])
    """
    tensor = stored_tensor(value)
    return tensor.numpy() if tensor is not None and present(tensor) else None


PAIR = frozenset({"QuantizeLinear", "DequantizeLinear"})

MOVES = frozenset(
    {"Transpose", "Pad", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout", "Slice", "Expand"}
)
"""What only moves numbers; engines see through it."""

ACTIVATIONS = frozenset({"Relu", "Clip"})

CONVOLUTIONS = frozenset({"Conv", "ConvTranspose", "FusedConv", "QLinearConv", "ConvInteger"})

INTEGER = frozenset({"QLinearConv", "ConvInteger", "QLinearMatMul", "MatMulInteger", "QGemm"})
"""Weighted operators of the QOperator format, which compute in integers by themselves."""

_KERNEL: Mapping[str, int] = {
    "Conv": 1,
    "ConvTranspose": 1,
    "FusedConv": 1,
    "Gemm": 1,
    "MatMul": 1,
    "QLinearConv": 3,
    "ConvInteger": 1,
    "QLinearMatMul": 3,
    "MatMulInteger": 1,
    "QGemm": 3,
}
"""Which input of a weighted operator is its kernel."""

_KINDS: Mapping[str, OpKind] = {
    **dict.fromkeys(CONVOLUTIONS, OpKind.CONV),
    **dict.fromkeys(("Gemm", "MatMul", "QLinearMatMul", "MatMulInteger", "QGemm"), OpKind.DENSE),
    "Add": OpKind.ADD,
    "Sum": OpKind.ADD,
    "Mul": OpKind.MULTIPLY,
    "Concat": OpKind.CONCAT,
    "MaxPool": OpKind.MAX_POOL,
    "GlobalMaxPool": OpKind.MAX_POOL,
    "AveragePool": OpKind.AVERAGE_POOL,
    "GlobalAveragePool": OpKind.AVERAGE_POOL,
    "BatchNormalization": OpKind.BATCH_NORM,
}

WEIGHTED = frozenset({OpKind.CONV, OpKind.DENSE})


@dataclass(frozen=True)
class Operation:
    """A node that computes.

    Args:
        node: the node.
        kind: what it computes.
        inputs: the tensors that it reads, without what is stored in the file.
        kernel: of a weighted operation; stored, or computed from what is stored.
    """

    node: ir.Node
    kind: OpKind
    inputs: tuple[ir.Value, ...]
    kernel: ir.Value | None = None

    @property
    def name(self) -> str:
        """The node's name, or its output's where it has none."""
        return name_of(self.node)

    @property
    def integer(self) -> bool:
        """Whether it computes in integers by itself."""
        return self.node.op_type in INTEGER


def name_of(node: ir.Node) -> str:
    """A name that a reader can look up in the file."""
    return str(node.name or (node.outputs[0].name if node.outputs else node.op_type))


def moves(node: ir.Node) -> bool:
    """Whether a node only hands on numbers: a pooling of single pixels does, too.

    Example:
        >>> moves(ir.node("Transpose", [])), moves(ir.node("MaxPool", [], {"kernel_shape": [1, 1]}))
        (True, True)
    """
    if node.op_type == "MaxPool":
        shape = node.attributes.get("kernel_shape")
        return shape is not None and all(size == 1 for size in shape.as_ints())
    return node.op_type in MOVES


def operations_of(graph: ir.Graph) -> Iterator[Operation]:
    """All nodes that a target may have a rule for, in the order of the file.

    A multiplication or addition with a constant is none of them, nor is a product of two tensors that are computed.
    """
    for node in graph:
        kind = _KINDS.get(node.op_type)
        if kind is None or moves(node) or not node.outputs:
            continue
        read = tuple(value for value in node.inputs if value is not None and not from_stored(value))
        if kind in WEIGHTED:
            kernel = input_at(node, _KERNEL[node.op_type])
            if kernel is not None and (kind is OpKind.CONV or from_stored(kernel)):
                yield Operation(node, kind, read[:1], kernel)
        elif len(read) > 1 or kind not in {OpKind.ADD, OpKind.MULTIPLY}:
            yield Operation(node, kind, read)


def from_stored(value: ir.Value) -> bool:
    """Whether a value is stored, or made of what is stored alone by Q/DQ pairs and moves."""
    while stored_tensor(value) is None:
        node = value.producer()
        above = None if node is None else input_at(node, 0)
        if node is None or above is None or not (node.op_type in PAIR or node.op_type == "Cast" or moves(node)):
            return False
        value = above
    return True


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
