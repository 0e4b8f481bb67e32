"""Keep an engine from rounding a float kernel, by a bias in integers that has exactly the numbers of the float one.

ONNX Runtime 1.32 rounds the float kernel of a Conv, ConvTranspose or Gemm behind a DequantizeLinear to int8, with one
scale for the whole kernel, and the file computes something else than was simulated (`WeightBiasQuantization` in
onnxruntime/core/optimizer/qdq_transformer). It leaves a node alone whose bias is not stored, but computed, as by a
DequantizeLinear of int32. With scales that are powers of two,

    b = q · s,    s = 2^(e - 24),    |b| < 2^e,

q is a whole number of at most 24 bits, which float32 holds, and no bit of b is lost.
"""

import numpy as np
import onnx_ir as ir

from keras_qat.onnx.passes.editing import array_of
from keras_qat.onnx.passes.quantize_dense_bias import store_bias
from keras_qat.onnx.walk import input_at, pair_above

_CHANNEL_AXIS = {"Conv": 0, "ConvTranspose": 1, "Gemm": 1}
"""The axis of the output channels of a kernel, in one group."""

_BITS = 24
"""The bits of a number of float32, of which its exponent says where they stand."""

_LEAST_EXPONENT = -125
"""The exponent of the smallest normal number of float32, as `np.frexp` counts; below it, engines may compute with 0."""


class KeepFloatKernel(ir.passes.InPlacePass):
    """Conv(DQ(x), w, b) becomes Conv(DQ(x), w, DQ(int32 b)), and so do ConvTranspose and Gemm."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Store the bias of every such node in integers; a bias of zeros, where there is none."""
        modified = False
        for node in list(model.graph):
            kernel, x = input_at(node, 1), input_at(node, 0)
            if node.op_type not in _CHANNEL_AXIS or kernel is None or kernel.const_value is None or x is None:
                continue
            bias = _bias(node)
            if bias is not None and pair_above(x) is not None:
                store_bias(model.graph, node, *_in_integers(bias))
                modified = True
        return ir.passes.PassResult(model, modified)


def _bias(node: ir.Node) -> np.ndarray | None:
    """The stored bias of a node, zeros if it has none; `None` if it is computed, or can't be stored in integers."""
    bias = input_at(node, 2)
    if bias is None:
        group = node.attributes.get_int("group", 1) if node.op_type == "ConvTranspose" else 1
        return np.zeros(array_of(node.inputs[1]).shape[_CHANNEL_AXIS[node.op_type]] * group, np.float32)
    if bias.const_value is None:
        return None
    array = array_of(bias)
    return array if array.ndim == 1 and np.isfinite(array).all() else None


def _in_integers(bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The integers and the scales of a bias."""
    _, exponent = np.frexp(bias.astype(np.float64))
    s = np.ldexp(1.0, np.maximum(exponent - _BITS, _LEAST_EXPONENT - 1))
    return np.round(bias / s), s
