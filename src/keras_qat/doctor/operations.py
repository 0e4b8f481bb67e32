"""ONNX nodes in the vocabulary of the targets: of what kind each is, what it computes with, what it only moves."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from keras_qat.doctor.constants import stored_tensor
from keras_qat.doctor.node_inputs import input_at
from keras_qat.types import OpKind

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
