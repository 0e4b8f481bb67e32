"""Fold a BatchNormalization, or a Mul or Add of one number per channel, into the operator before it, exactly.

The operator is a Conv, a ConvTranspose or a Gemm with a stored kernel.

All of them are affine per output channel. A batch norm has g = γ / √(σ² + ε) and h = β - g · μ; a Mul has g only, an
Add h only:

    g · (Σ w·x + b) + h  =  Σ (g·w)·x  +  (g · b + h).

A float kernel is multiplied by g. An int8 kernel keeps its integers: the scale of the channel is multiplied by |g|, and
a negative g flips the sign of the integers, which the narrow range [-127, 127] allows. A channel with g = 0 gets zero
integers, since a scale must be positive. Computed in float64, stored in float32.

A BatchNormalization without a convolution before it stays in float32 files, where one operator is faster than two and
loses nothing. In FP16 files it is written as a Mul and an Add: in FP16 a variance over 65504 is infinite and an ε of
1e-5 loses bits, while g and h, computed here in float64, are representable.
"""

import numpy as np
import onnx_ir as ir

from keras_qat.onnx.emission import keras_nodes, mark
from keras_qat.onnx.passes import editing
from keras_qat.onnx.walk import input_at


class FoldAffine(ir.passes.InPlacePass):
    """Conv → BatchNormalization, Mul or Add becomes Conv; likewise behind a ConvTranspose or a Gemm."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Fold every affine node that is the only reader of a Conv."""
        modified = False
        for node in list(model.graph):
            conv = editing.producer_of(input_at(node, 0))
            axis = None if conv is None else _channel_axis(conv)
            if conv is None or axis is None or len(conv.outputs[0].uses()) != 1:
                continue
            affine = _affine(node, channels=editing.kernel_of(conv).shape[axis])
            if affine is not None and not conv.outputs[0].is_graph_output():
                _fold(model.graph, conv, node, *affine)
                modified = True
        return ir.passes.PassResult(model, modified)


_CHANNEL_AXIS = {"Conv": 0, "ConvTranspose": 1, "Gemm": 1}
"""The axis of the output channels in the kernel of each operator with a bias."""

_GROUPED = {"ConvTranspose"}
"""Operators whose kernel has the output channels of one group only."""


def _channel_axis(node: ir.Node) -> int | None:
    """The axis of the output channels in the kernel of a node; `None` if it has no stored kernel to fold into."""
    if node.op_type not in _CHANNEL_AXIS or (node.op_type in _GROUPED and node.attributes.get_int("group", 1) != 1):
        return None
    kernel = node.inputs[1]
    dequantize = editing.producer_of(kernel)
    stored = kernel if dequantize is None else input_at(dequantize, 0)
    return None if stored is None or stored.const_value is None else _CHANNEL_AXIS[node.op_type]


def _affine(node: ir.Node, channels: int) -> tuple[np.ndarray, np.ndarray] | None:
    """(g, h), each of shape (channels,), float64; `None` for a node that is not affine per channel."""
    if node.op_type == "BatchNormalization":
        return _batch_norm_affine(node)
    if node.op_type not in {"Mul", "Add"} or node.inputs[1] is None or node.inputs[1].const_value is None:
        return None
    constant = editing.array_of(node.inputs[1]).astype(np.float64)
    if constant.size != 1 and constant.shape != (1, channels, *[1] * (constant.ndim - 2)):
        return None
    spread = np.broadcast_to(constant.reshape(-1), channels)
    return (spread, np.zeros(channels)) if node.op_type == "Mul" else (np.ones(channels), spread)


def _batch_norm_affine(node: ir.Node) -> tuple[np.ndarray, np.ndarray]:
    """(g, h) of a BatchNormalization, each of shape (channels,), float64."""
    gamma, beta, mean, variance = (editing.array_of(v).astype(np.float64) for v in node.inputs[1:5])
    g = gamma / np.sqrt(variance + node.attributes["epsilon"].as_float())
    return g, beta - g * mean


def _fold(graph: ir.Graph, conv: ir.Node, affine: ir.Node, g: np.ndarray, h: np.ndarray) -> None:
    bias = input_at(conv, 2)
    b = np.zeros_like(h) if bias is None else editing.array_of(bias).astype(np.float64)
    if np.any(g != 1):
        _scale_kernel(graph, conv, g)
    folded = editing.new_constant(graph, f"{conv.name}/bias_folded", (g * b + h).astype(np.float32))
    conv.resize_inputs(3)
    conv.replace_input_with(2, folded)
    mark(conv, keras_nodes(affine))
    editing.replace_and_remove(graph, affine, conv.outputs[0])


def _scale_kernel(graph: ir.Graph, conv: ir.Node, g: np.ndarray) -> None:
    """Multiply the output channels of the kernel by g."""
    kernel, axis = conv.inputs[1], _CHANNEL_AXIS[conv.op_type]
    if kernel is None:
        return
    rank = editing.kernel_of(conv).ndim

    def spread(array: np.ndarray) -> np.ndarray:
        return array.reshape([-1 if a == axis else 1 for a in range(rank)])

    dequantize = kernel.producer()
    if dequantize is None:
        w = (editing.array_of(kernel).astype(np.float64) * spread(g)).astype(np.float32)
        conv.replace_input_with(1, editing.new_constant(graph, f"{kernel.name}_folded", w))
        editing.drop_unused(graph, kernel)
        return
    integers, scale = dequantize.inputs[:2]
    s = (editing.array_of(scale).astype(np.float64) * np.abs(g)).astype(np.float32)
    sign = np.where(s > 0, np.sign(g), 0).astype(np.int8)
    q = editing.array_of(integers) * spread(sign)
    s = np.where(s > 0, s, 1).astype(np.float32)
    dequantize.replace_input_with(0, editing.new_constant(graph, f"{conv.name}/kernel_folded", q))
    dequantize.replace_input_with(1, editing.new_constant(graph, f"{conv.name}/kernel_scale_folded", s))


class SpellOutBatchNorm(ir.passes.InPlacePass):
    """BatchNormalization becomes Mul → Add."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Replace every BatchNormalization that is left."""
        left = [node for node in model.graph if node.op_type == "BatchNormalization"]
        for node in left:
            _spell_out(model.graph, node)
        return ir.passes.PassResult(model, modified=bool(left))


def _spell_out(graph: ir.Graph, batch_norm: ir.Node) -> None:
    value, output = batch_norm.inputs[0], batch_norm.outputs[0]
    if value is None:
        return
    shape = (-1, *[1] * (len(output.shape or ()) - 2))
    names = (f"{batch_norm.name}/scale", str(batch_norm.name))
    for op_type, name, factor in zip(("Mul", "Add"), names, _batch_norm_affine(batch_norm), strict=True):
        array = factor.astype(np.float32).reshape(shape)
        constant = editing.new_constant(graph, f"{batch_norm.name}/{op_type.lower()}", array)
        node = editing.new_node(op_type, [value, constant], name, like=output)
        mark(node, keras_nodes(batch_norm))
        graph.insert_before(batch_norm, node)
        value = node.outputs[0]
    editing.replace_and_remove(graph, batch_norm, value)
