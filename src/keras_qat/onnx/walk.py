"""The graph of an ONNX file: what its nodes compute, what is stored in it, and how tensors flow from node to node.

Producers and consumers are found through nodes that a predicate lets pass, such as Q/DQ pairs or nodes that only move
numbers. A malformed file is no error here: an input that a node lacks is `None`.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir

from keras_qat.types import OpKind

Predicate = Callable[[ir.Node], bool]

PAIR = frozenset({"QuantizeLinear", "DequantizeLinear"})

MOVES = frozenset(
    {"Transpose", "Pad", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout", "Slice", "Expand"}
)
"""Operators that only move numbers, so that engines run them on integers."""

MAX_POOLS = frozenset({"MaxPool", "GlobalMaxPool"})
"""Operators that engines run on integers by moving the dequantization past them."""

ACTIVATIONS = frozenset({"Relu", "Clip"})

CONVOLUTIONS = frozenset({"Conv", "ConvTranspose", "FusedConv", "QLinearConv", "ConvInteger"})

INTEGER = frozenset({"QLinearConv", "ConvInteger", "QLinearMatMul", "MatMulInteger", "QGemm"})
"""Weighted operators of the QOperator format, which compute in integers without Q/DQ pairs."""

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
"""The index of the kernel among the inputs of each weighted operator."""

_WEIGHTED = frozenset({OpKind.CONV, OpKind.DENSE})

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


def name_of(node: ir.Node) -> str:
    """The name of a node, or that of its first output if the node has none."""
    return str(node.name or (node.outputs[0].name if node.outputs else node.op_type))


def input_at(node: ir.Node, index: int) -> ir.Value | None:
    """One input of a node; `None` if it is optional and left out, or missing in an invalid file.

    Example:
        >>> input_at(ir.node("Relu", []), 0) is None
        True
    """
    return node.inputs[index] if index < len(node.inputs) else None


def moves(node: ir.Node) -> bool:
    """Whether a node only moves numbers, as a pooling over single pixels does too.

    Example:
        >>> moves(ir.node("Transpose", [])), moves(ir.node("MaxPool", [], {"kernel_shape": [1, 1]}))
        (True, True)
    """
    if node.op_type == "MaxPool":
        shape = node.attributes.get("kernel_shape")
        return shape is not None and all(size == 1 for size in shape.as_ints())
    return node.op_type in MOVES


def _moves_or_pair(node: ir.Node) -> bool:
    return node.op_type in PAIR or moves(node)


def _casts_moves_or_pair(node: ir.Node) -> bool:
    return node.op_type == "Cast" or _moves_or_pair(node)


def _moves_or_max_pools(node: ir.Node) -> bool:
    return node.op_type in MAX_POOLS or moves(node)


def upstream(value: ir.Value, through: Predicate) -> Iterator[ir.Value]:
    """A tensor, then the tensors that it is computed from.

    Args:
        value: the tensor.
        through: whether the walk goes on from a node's output to its first input.

    Yields:
        `value`, then the first input of each node that the walk passes.

    Example:
        >>> x = ir.Value(name="x")
        >>> relu = ir.node("Relu", [ir.node("Transpose", [x]).outputs[0]])
        >>> [tensor.name for tensor in upstream(relu.outputs[0], lambda node: True)][-1]
        'x'
    """
    tensor: ir.Value | None = value
    while tensor is not None:
        yield tensor
        node = tensor.producer()
        tensor = input_at(node, 0) if node is not None and through(node) else None


def source(value: ir.Value, through: Predicate) -> ir.Value:
    """The last tensor that `upstream` reaches."""
    *_, last = upstream(value, through)
    return last


def producer(value: ir.Value, through: Predicate = _moves_or_pair) -> ir.Node | None:
    """The node that computes a tensor, as seen through others; `None` if the tensor is an input or stored.

    Args:
        value: the tensor.
        through: the nodes to see through; those that move numbers and Q/DQ pairs if not given.
    """
    return source(value, through).producer()


def consumers(value: ir.Value, through: Predicate = moves) -> Iterator[ir.Node | None]:
    """The nodes that read a tensor, as seen through others.

    Args:
        value: the tensor.
        through: the nodes to see through, where they read the tensor as their data: as their first input, or as any
            input of a Concat. Those that move numbers if not given.

    Yields:
        Each node; `None` where the tensor is an output of the graph.
    """
    pending: list[ir.Value | ir.Node | None] = [value]
    passed: set[ir.Value] = set()
    # Without recursion, and through each tensor once: a file may have thousands of such nodes in a row, or ever more
    # paths between them.
    while pending:
        item = pending.pop()
        if not isinstance(item, ir.Value):
            yield item
        elif item not in passed:
            passed.add(item)
            reads: list[ir.Value | ir.Node | None] = [None] if item.is_graph_output() else []
            reads += [node.outputs[0] if _passes(node, at, through) else node for node, at in item.uses()]
            pending.extend(reversed(reads))


def _passes(node: ir.Node, index: int, through: Predicate) -> bool:
    """Whether a walk goes on from an input of a node to its output."""
    data = index == 0 or node.op_type == "Concat"
    return data and bool(node.outputs) and through(node)


def constant_tensor(value: ir.Value | None) -> ir.TensorProtocol | None:
    """The stored tensor of a value: an initializer, or what a Constant node holds.

    Args:
        value: the value, or an Identity of it.

    Returns:
        The tensor; `None` if the value is computed or an input of the graph.

    Example:
        >>> constant_tensor(ir.Value(const_value=ir.tensor([1, 2]))).shape.numpy()
        (2,)
    """
    if value is None:
        return None
    return _stored_tensor(source(value, _is_identity))


def _is_identity(node: ir.Node) -> bool:
    return node.op_type == "Identity"


def _stored_tensor(value: ir.Value) -> ir.TensorProtocol | None:
    node = value.producer()
    if value.const_value is not None or node is None or node.op_type != "Constant":
        return value.const_value
    # A Constant node has exactly one attribute: `value`, or a list or number such as `value_floats`.
    held = next((attribute.value for attribute in node.attributes.values()), None)
    if isinstance(held, int | float | list | tuple):
        return ir.tensor(held)
    return held if isinstance(held, ir.TensorProtocol) else None


def is_present(tensor: ir.TensorProtocol) -> bool:
    """Whether the data of a tensor can be read; external data may be missing or truncated.

    Example:
        >>> is_present(ir.tensor([1, 2]))
        True
    """
    if not isinstance(tensor, ir.ExternalTensor):
        return True
    path = Path(tensor.path)
    return path.is_file() and path.stat().st_size >= (tensor.offset or 0) + tensor.nbytes


def constant_array(value: ir.Value | None) -> np.ndarray | None:
    """The stored array of a value; `None` if the value is not stored, or its external data can't be read.

    Example:
        >>> constant_array(ir.Value(const_value=ir.tensor([1, 2])))
        array([1, 2])
    """
    tensor = constant_tensor(value)
    return tensor.numpy() if tensor is not None and is_present(tensor) else None


def is_constant(value: ir.Value, through: Predicate = _casts_moves_or_pair) -> bool:
    """Whether a tensor is stored, or computed from a stored one alone.

    Args:
        value: the tensor.
        through: the nodes that may compute it, besides Identity; casts, those that move numbers and Q/DQ pairs if not
            given.
    """
    passed = upstream(value, lambda node: _is_identity(node) or through(node))
    return any(_stored_tensor(tensor) is not None for tensor in passed)


def pair_above(value: ir.Value) -> ir.Node | None:
    """The DequantizeLinear that a tensor comes from, if integers reach its consumer.

    It is seen through nodes that move numbers, max-pools, and concatenations of which every input has a pair.
    """
    pairs: list[ir.Node] = []
    pending = [value]
    passed: set[ir.Value] = set()
    while pending:
        tensor = pending.pop()
        if tensor in passed:
            continue
        passed.add(tensor)
        node = producer(tensor, _moves_or_max_pools)
        parts = [] if node is None or node.op_type != "Concat" else [part for part in node.inputs if part is not None]
        pending.extend(reversed(parts))
        if node is not None and node.op_type == "DequantizeLinear" and input_at(node, 0) is not None:
            pairs.append(node)
        elif not parts:
            return None
    return pairs[0]


def product_scale(node: ir.Node) -> np.ndarray | None:
    """The scale s_x · s_w of the products of a weighted node's integers.

    Args:
        node: a node whose first two inputs are its tensor and its kernel.

    Returns:
        A float64 array of one scale for each output channel, or of one for all; `None` if the tensor or the kernel is
        float, or the tensor has a scale for each channel.
    """
    values = (input_at(node, index) for index in (0, 1))
    pairs = [None if value is None else pair_above(value) for value in values]
    s_x, s_w = (None if pair is None else constant_array(input_at(pair, 1)) for pair in pairs)
    if s_x is None or s_w is None or s_x.size != 1:
        return None
    return np.asarray(s_x.astype(np.float64).reshape(()) * s_w.astype(np.float64).reshape(-1))


def before_pair(value: ir.Value | None) -> ir.Value | None:
    """The integers that a tensor, such as a kernel or bias, is dequantized from; the tensor itself if it is float."""
    pair = None if value is None else pair_above(value)
    return value if pair is None else input_at(pair, 0)


def quantizers(value: ir.Value) -> list[ir.Node] | None:
    """The QuantizeLinear nodes that read a tensor; `None` if nothing reads it, or if anything else does."""
    below = list(consumers(value))
    nodes = [node for node in below if node is not None and node.op_type == "QuantizeLinear"]
    return nodes if nodes and len(nodes) == len(below) else None


def fused_output(node: ir.Node) -> tuple[ir.Value, ir.Node | None]:
    """The output of a node, or of the ReLU or Clip that an engine fuses into it as its only consumer.

    Returns:
        The tensor, and the activation if there is one.
    """
    output = node.outputs[0]
    below = list(consumers(output))
    if len(below) == 1 and below[0] is not None and below[0].op_type in ACTIVATIONS and below[0].outputs:
        return below[0].outputs[0], below[0]
    return output, None


def is_unshared(value: ir.Value, op_types: Collection[str] = CONVOLUTIONS) -> bool:
    """Whether a tensor is the result of one of these operators and nothing else reads that result.

    Args:
        value: the tensor, after the operator itself or a Q/DQ pair behind it.
        op_types: the operators; convolutions if not given.
    """
    node = producer(value)
    return node is not None and node.op_type in op_types and len(list(consumers(node.outputs[0]))) == 1


@dataclass(frozen=True)
class Operation:
    """A node that computes.

    Args:
        node: the node.
        kind: what it computes.
        inputs: the tensors that it reads, constants left out.
        kernel: the weights of a weighted operation.
    """

    node: ir.Node
    kind: OpKind
    inputs: tuple[ir.Value, ...]
    kernel: ir.Value | None = None

    @property
    def name(self) -> str:
        """The node's name, or that of its output if the node has none."""
        return name_of(self.node)

    @property
    def weighted(self) -> bool:
        """Whether it is a convolution or a matrix product with stored weights."""
        return self.kind in _WEIGHTED

    @property
    def integer(self) -> bool:
        """Whether its operator computes in integers without Q/DQ pairs."""
        return self.node.op_type in INTEGER

    @property
    def input_pairs(self) -> tuple[ir.Node | None, ...]:
        """The DequantizeLinear that each input comes from, `None` where there is none."""
        return tuple(map(pair_above, self.inputs))

    @property
    def kernel_pair(self) -> ir.Node | None:
        """The DequantizeLinear that the kernel comes from, `None` if there is none."""
        return None if self.kernel is None else pair_above(self.kernel)

    @property
    def quantized(self) -> bool:
        """Whether the input and the weights of a weighted operation are quantized."""
        return self.integer or (self.kernel_pair is not None and all(self.input_pairs))

    @property
    def quantizers(self) -> list[ir.Node] | None:
        """The QuantizeLinear nodes that alone read its output, behind a fused activation; else `None`."""
        return quantizers(fused_output(self.node)[0])


def operations_of(graph: ir.Graph) -> Iterator[Operation]:
    """The nodes that a target may have a rule for, in the order of the file.

    Multiplications and additions with a constant are left out, and so are products of two computed tensors.
    """
    for node in graph:
        kind = _KINDS.get(node.op_type)
        if kind is None or moves(node) or not node.outputs:
            continue
        read = tuple(value for value in node.inputs if value is not None and not is_constant(value))
        if kind in _WEIGHTED:
            kernel = input_at(node, _KERNEL[node.op_type])
            if kernel is not None and (kind is OpKind.CONV or is_constant(kernel)):
                yield Operation(node, kind, read[:1], kernel)
        elif len(read) > 1 or kind not in {OpKind.ADD, OpKind.MULTIPLY}:
            yield Operation(node, kind, read)
