"""Write x · x as a power and x + x as a multiple, for OpenVINO.

OpenVINO 2026.4 fuses an element-wise operation into the INT8 convolution before it. Where both operands are the
convolution's result, it computes 0, without a message. With a constant operand it computes what the file says.
"""

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from keras_qat.onnx.emission import keras_nodes, mark
from keras_qat.onnx.passes.editing import new_constant, new_node, replace_and_remove
from keras_qat.onnx.walk import input_at

_SAME: Mapping[str, str] = {"Mul": "Pow", "Add": "Mul"}
"""{operator of a value with itself: the operator of the value and 2 that computes the same}."""


class NameOwnOperand(ir.passes.InPlacePass):
    """Mul(x, x) becomes Pow(x, 2), and Add(x, x) becomes Mul(x, 2)."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Replace every such node whose value isn't stored in the file."""
        found = [node for node in model.graph if node.op_type in _SAME and _is_with_itself(node)]
        for node in found:
            _replace(model.graph, node)
        return ir.passes.PassResult(model, modified=bool(found))


def _is_with_itself(node: ir.Node) -> bool:
    x, other = input_at(node, 0), input_at(node, 1)
    return x is not None and x is other and x.const_value is None and x.dtype is ir.DataType.FLOAT


def _replace(graph: ir.Graph, node: ir.Node) -> None:
    x, name = node.inputs[0], str(node.name)
    if x is None:
        return
    two = new_constant(graph, f"{name}/two", np.asarray(2, np.float32))
    same = new_node(_SAME[node.op_type], [x, two], name, like=node.outputs[0])
    mark(same, keras_nodes(node))
    graph.insert_before(node, same)
    replace_and_remove(graph, node, same.outputs[0])
