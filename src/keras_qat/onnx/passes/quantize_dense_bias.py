"""Store the bias of a quantized Gemm as int32 behind a DequantizeLinear, for engines that need it to stay in integers.

    q = round(b / (s_x · s_w)),   so that   b ≈ s_x · s_w · q   adds to the integer products as it is.

The step s_x · s_w is thousands of times finer than the output's, so nothing is lost; a bias too large for int32, or
not finite, stays float.
"""

import numpy as np
import onnx_ir as ir

from keras_qat.onnx.emission import keras_nodes, mark
from keras_qat.onnx.passes.constants import array_of, new_constant

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
    scales = [_dequantize_scale(v) for v in (x, w)]
    if b is None or b.const_value is None or scales[0] is None or scales[1] is None:
        return False
    step = scales[0].astype(np.float64) * scales[1].astype(np.float64)
    q = np.round(array_of(b).astype(np.float64) / step)
    if not np.all(np.abs(q) <= np.iinfo(np.int32).max):
        return False
    integers = new_constant(graph, f"{gemm.name}/bias_int32", q.astype(np.int32))
    scale = new_constant(graph, f"{gemm.name}/bias_scale", step.astype(np.float32))
    zero = new_constant(graph, f"{gemm.name}/bias_zero_point", np.zeros(q.shape, np.int32))
    dequantize = ir.node(
        "DequantizeLinear", [integers, scale, zero], {"axis": 0}, name=f"{gemm.name}/bias/DequantizeLinear"
    )
    dequantize.outputs[0].name = f"{gemm.name}/bias/DequantizeLinear/output"
    mark(dequantize, keras_nodes(gemm))
    graph.insert_before(gemm, dequantize)
    gemm.replace_input_with(2, dequantize.outputs[0])
    return True


def _dequantize_scale(value: ir.Value | None) -> np.ndarray | None:
    node = None if value is None else value.producer()
    return array_of(node.inputs[1]) if node is not None and node.op_type == "DequantizeLinear" else None
