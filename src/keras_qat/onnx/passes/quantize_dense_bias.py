"""Store the bias of a quantized Gemm as int32 behind a DequantizeLinear, for engines whose integer Gemm needs that.

    q = round(b / (s_x · s_w)),   so that   b ≈ s_x · s_w · q   has the scale of the integer products.

The scale s_x · s_w is thousands of times finer than that of the output, so nothing is lost. A bias that is too large
for int32, or not finite, stays float.
"""

import numpy as np
import onnx_ir as ir

from keras_qat.onnx.emission import keras_nodes, mark
from keras_qat.onnx.passes.editing import array_of, dequantize_scale, new_constant, new_node

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
    name = f"{gemm.name}/bias"
    inputs = [
        new_constant(graph, f"{name}_int32", q.astype(np.int32)),
        new_constant(graph, f"{name}_scale", s.astype(np.float32)),
        new_constant(graph, f"{name}_zero_point", np.zeros(q.shape, np.int32)),
    ]
    dequantize = new_node("DequantizeLinear", inputs, f"{name}/DequantizeLinear", like=b, axis=0)
    mark(dequantize, keras_nodes(gemm))
    graph.insert_before(gemm, dequantize)
    gemm.replace_input_with(2, dequantize.outputs[0])
    return True
