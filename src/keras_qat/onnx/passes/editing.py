"""How the passes read and edit a graph: constants, nodes and kernels."""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from keras_qat.onnx import walk
from keras_qat.onnx.emission import mark_helper, unique_name


def array_of(value: ir.Value | None) -> np.ndarray:
    """The numbers of a constant.

    Raises:
        ValueError: If the value isn't a constant, which the pass must have checked.
    """
    if value is None or value.const_value is None:
        raise ValueError(f"Expected a constant. Received: {value}")
    return value.const_value.numpy()


def new_constant(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    """Add an initializer; if the name is taken, a number is appended."""
    unique = unique_name(name, graph.initializers)
    value = ir.val(unique, const_value=ir.tensor(array, name=unique))
    graph.register_initializer(value)
    return value


def set_array(value: ir.Value, array: np.ndarray) -> None:
    """Replace the numbers of a constant for all its readers."""
    value.const_value = ir.tensor(array, name=value.name)
    value.dtype, value.shape = value.const_value.dtype, ir.Shape(array.shape)


def drop_unused(graph: ir.Graph, value: ir.Value) -> None:
    """Free a constant that has no reader any more, without waiting for the end of the passes: kernels are large."""
    if not value.uses() and value.name is not None:
        graph.initializers.pop(value.name, None)
        value.const_value = None


def producer_of(value: ir.Value | None) -> ir.Node | None:
    """The node that computes a value; `None` for a constant, an input of the graph, or an input that is left out."""
    return None if value is None else value.producer()


def dequantize_scale(value: ir.Value | None) -> np.ndarray | None:
    """The scale of the DequantizeLinear that makes a value, float64; `None` if another node computes it.

    Nodes that move numbers, such as the Reshape of a Flatten, are seen through: the engine moves the pair behind them.
    """
    node = None if value is None else walk.producer(value, walk.moves)
    if node is None or node.op_type != "DequantizeLinear":
        return None
    return array_of(node.inputs[1]).astype(np.float64)


def kernel_of(conv: ir.Node) -> np.ndarray:
    """The stored kernel of a convolution: float, or the integers that its DequantizeLinear reads."""
    dequantize = producer_of(conv.inputs[1])
    return array_of(conv.inputs[1] if dequantize is None else dequantize.inputs[0])


def new_node(
    op_type: str, inputs: Sequence[ir.Value], name: str, like: ir.Value, **attributes: int | Sequence[int]
) -> ir.Node:
    """A node that is not in the graph yet, with an output of the type and shape of `like`."""
    output = ir.val(f"{name}/output", like.dtype, like.shape)
    return ir.node(op_type, inputs, attributes, outputs=[output], name=name)


def replace_and_remove(graph: ir.Graph, node: ir.Node, replacement: ir.Value) -> None:
    """Let all readers of a node's output read `replacement`, and remove the node.

    The replacement takes over the name of the output, so that a tensor keeps the name of the Keras layer that made it.
    """
    output = node.outputs[0]
    name, shape = output.name, output.shape
    output.replace_all_uses_with(replacement, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    replacement.name = name
    if shape is not None:
        replacement.shape = shape


def insert_between(
    graph: ir.Graph, op_type: str, number: np.float32, value: ir.Value, readers: Sequence[ir.Node], name: str
) -> None:
    """Let these readers of a value read the result of an operator on the value and a number instead.

    Args:
        graph: the graph.
        op_type: the operator, such as `"Add"`.
        number: its second operand.
        value: the value.
        readers: nodes that read it, the first of the graph first.
        name: the name of the new node, which stands for no Keras node.
    """
    constant = new_constant(graph, f"{name}/number", np.asarray(number))
    made = new_node(op_type, [value, constant], name, like=value)
    mark_helper(made)
    before = value.producer()
    if before is None:
        graph.insert_before(readers[0], made)
    else:
        graph.insert_after(before, made)
    for reader in readers:
        for index, operand in enumerate(reader.inputs):
            if operand is value:
                reader.replace_input_with(index, made.outputs[0])
