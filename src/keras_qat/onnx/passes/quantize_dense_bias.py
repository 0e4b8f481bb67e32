"""Store the bias of a quantized Gemm as int32 behind a DequantizeLinear, for engines whose integer Gemm needs that.

    q = round(b / (s_x · s_w)),   so that   b ≈ s_x · s_w · q   has the scale of the integer products.

The scale s_x · s_w is thousands of times finer than that of the output, so nothing is lost. A bias that is too large
for int32, or not finite, stays float.
"""

import numpy as np
import onnx_ir as ir

from keras_qat.onnx.emission import keras_nodes, mark
from keras_qat.onnx.passes.editing import array_of, dequantize_scale, new_constant

_INPUTS_WITH_BIAS = 3


class QuantizeDenseBias(ir.passes.InPlacePass):
    """Gemm(DQ(x), DQ(w), b) becomes Gemm(DQ(x), DQ(w), DQ(int32 b))."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Quantize the bias of every Gemm whose input and kernel are dequantized."""
        modified = False
        for node in list(model.graph):
            if node.op_type == "Gemm" and len(node.inputs) == _INPUTS_WITH_BIAS:
                modified |= _quantize(model.graph, node)
        return ir.passes.PassResult(model, modified)


def _quantize(graph: ir.Graph, gemm: ir.Node) -> bool:
    x, w, b = gemm.inputs
    s_x, s_w = dequantize_scale(x), dequantize_scale(w)
    if b is None or b.const_value is None or s_x is None or s_w is None:
        return False
    s = s_x * s_w
    q = np.round(array_of(b).astype(np.float64) / s)
    if not np.all(np.abs(q) <= np.iinfo(np.int32).max):
        return False
    store_bias(graph, gemm, q, s)
    return True


def store_bias(graph: ir.Graph, node: ir.Node, q: np.ndarray, s: np.ndarray) -> None:
    """Let a node read its bias from a DequantizeLinear.

    Args:
        graph: the graph of the node.
        node: a Conv, ConvTranspose or Gemm.
        q: the integers, shape (channels,), that int32 holds.
        s: their scales, likewise.
    """
    name, axis = f"{node.name}/bias", {"axis": 0}
    inputs = [
        new_constant(graph, f"{name}_int32", q.astype(np.int32)),
        new_constant(graph, f"{name}_scale", s.astype(np.float32)),
        new_constant(graph, f"{name}_zero_point", np.zeros(q.shape, np.int32)),
    ]
    output = ir.val(f"{name}/DequantizeLinear/output", ir.DataType.FLOAT, ir.Shape(q.shape))
    dequantize = ir.node("DequantizeLinear", inputs, axis, outputs=[output], name=f"{name}/DequantizeLinear")
    mark(dequantize, keras_nodes(node))
    graph.insert_before(node, dequantize)
    node.resize_inputs(_INPUTS_WITH_BIAS)
    node.replace_input_with(_INPUTS_WITH_BIAS - 1, dequantize.outputs[0])
