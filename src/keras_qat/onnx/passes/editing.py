"""How the passes read and edit a graph: constants, nodes and kernels."""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from keras_qat.onnx import walk
from keras_qat.onnx.emission import unique_name


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
