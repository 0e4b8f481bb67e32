"""What the passes need of `onnx_ir`: constants as arrays, new constants, kernels, and nodes bypassed."""

import numpy as np
import onnx_ir as ir


def array_of(value: ir.Value | None) -> np.ndarray:
    """The constant behind a value.

    Raises:
        ValueError: the value is no constant; a pass must look before it asks.
    """
    if value is None or value.const_value is None:
        raise ValueError(f"Expected a constant. Received: {value}")
    return value.const_value.numpy()


def new_constant(graph: ir.Graph, name: str, array: np.ndarray) -> ir.Value:
    """Register `array` as an initializer under a name that is not taken."""
    unique, number = name, 1
    while unique in graph.initializers:
        number += 1
        unique = f"{name}_{number}"
    value = ir.val(unique, const_value=ir.tensor(array, name=unique))
    graph.register_initializer(value)
    return value


def set_array(value: ir.Value, array: np.ndarray) -> None:
    """Give a constant other numbers; all who read it read them."""
    value.const_value = ir.tensor(array, name=value.name)
    value.dtype, value.shape = value.const_value.dtype, ir.Shape(array.shape)


def drop_unused(graph: ir.Graph, value: ir.Value) -> None:
    """Free a constant that nothing reads any more, now and not when the passes are done: kernels are large."""
    if not value.uses() and value.name is not None:
        graph.initializers.pop(value.name, None)
        value.const_value = None


def kernel_of(conv: ir.Node) -> np.ndarray:
    """The kernel of a convolution as it is stored: float, or the integers behind its DequantizeLinear."""
    kernel = conv.inputs[1]
    dequantize = None if kernel is None else kernel.producer()
    return array_of(kernel if dequantize is None else dequantize.inputs[0])


def replace_and_remove(graph: ir.Graph, node: ir.Node, replacement: ir.Value) -> None:
    """Let everything that read the node's output read `replacement`, and drop the node.

    The replacement takes over the name, so tensors are still found by the Keras layer that made them.
    """
    output = node.outputs[0]
    name, shape = output.name, output.shape
    if output.is_graph_output():
        graph.outputs[graph.outputs.index(output)] = replacement
    output.replace_all_uses_with(replacement)
    graph.remove(node, safe=True)
    replacement.name = name
    if shape is not None:
        replacement.shape = shape
