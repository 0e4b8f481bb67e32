"""Raise the scale of a kernel's channel where the channel's bias would not fit 32 bits in steps of s_x · s_w.

Engines whose kernels add integers round the bias b of a channel to multiples of the scale of its products:

    q_b = round(b / (s_x · s_w)),    |q_b| < 2³¹.

A dead filter has weights of 1e-7 or 0 and a bias. Its s_w follows the weights, so that q_b overflows; ONNX Runtime then
computes something else without a message. With

    s_w ← max(s_w, |b| / (s_x · 2³⁰))

q_b is at most 2³⁰, and the rounded bias as exact as float32. The weights are rounded to coarser steps, each by at most
s_w / 2, which moves the sum of n products with |x| ≤ 127 s_x by at most n · 127 · |b| / 2³¹: for n = 4608 by 0.03% of
the bias, which is less than a step of the result.

A channel whose weights are all 0 may have any scale, such as the 1 of a batch norm with γ = 0. It gets the one that
represents its bias best.
"""

import numpy as np
import onnx_ir as ir

from keras_qat.onnx.passes.editing import array_of, dequantize_scale, new_constant, set_array
from keras_qat.onnx.walk import input_at

_LARGEST = 2.0**30
"""The largest |q_b|: a factor of 2 below the limit of int32, for what an engine adds to it."""

_SMALLEST_SCALE = 1e-30

_WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm"})


class FitBias(ir.passes.InPlacePass):
    """DQ(q, s_w) becomes DQ(q', s_w') for the kernels of Conv, ConvTranspose and Gemm with a bias."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Raise the scales of every kernel that needs it."""
        modified = False
        for node in list(model.graph):
            if node.op_type == "DequantizeLinear" and _is_constant(input_at(node, 0)):
                modified |= _fit(model.graph, node)
        return ir.passes.PassResult(model, modified)


def _fit(graph: ir.Graph, dequantize: ir.Node) -> bool:
    s_w = array_of(dequantize.inputs[1]).astype(np.float64)
    readers = [use.node for use in dequantize.outputs[0].uses() if use.idx == 1 and use.node.op_type in _WEIGHTED]
    needed = [floor for reader in readers if (floor := _least_scale(reader, s_w.size)) is not None]
    if not needed:
        return False
    q = array_of(dequantize.inputs[0])
    axis = dequantize.attributes.get_int("axis", 1) % q.ndim
    others = tuple(a for a in range(q.ndim) if a != axis)
    least = np.maximum(np.max(needed, axis=0), _SMALLEST_SCALE)
    has_bias = np.max(needed, axis=0) > 0
    empty = ~np.any(q, axis=others) & has_bias
    raised = np.where(empty, least, np.maximum(s_w, np.where(has_bias, least, 0))).astype(np.float32)
    if np.array_equal(raised, s_w.astype(np.float32)):
        return False
    shape = [-1 if a == axis else 1 for a in range(q.ndim)]
    ratio = (s_w / raised).reshape(shape)
    for index, array in ((0, np.round(q * ratio).astype(q.dtype)), (1, raised)):
        _replace_constant(graph, dequantize, index, array)
    return True


def _replace_constant(graph: ir.Graph, node: ir.Node, index: int, array: np.ndarray) -> None:
    """Give a node other numbers, under the same name unless other nodes read them, too."""
    value = node.inputs[index]
    if value is not None and len(value.uses()) == 1:
        set_array(value, array)
    elif value is not None:
        node.replace_input_with(index, new_constant(graph, f"{value.name}_fitted", array))


def _least_scale(node: ir.Node, channels: int) -> np.ndarray | None:
    """The smallest scale of each channel with which a node's bias fits; `None` if nothing rounds its bias."""
    bias, s_x = input_at(node, 2), dequantize_scale(input_at(node, 0))
    if not _is_constant(bias) or s_x is None:
        return None
    b = array_of(bias).astype(np.float64)
    if s_x.size != 1 or b.size != channels or not np.all(np.isfinite(b)):
        return None
    return np.asarray(np.abs(b).reshape(-1) / (float(s_x.reshape(())) * _LARGEST))


def _is_constant(value: ir.Value | None) -> bool:
    return value is not None and value.const_value is not None
