"""Fold a BatchNormalization, or a Mul or Add of one number a channel, into the convolution before it, exactly.

A batch norm has g = γ / √(σ² + ε), h = β - g · μ for each output channel; a Mul has g alone, an Add h alone:

    g · (Σ w·x + b) + h  =  Σ (g·w)·x  +  (g · b + h).

A float kernel is multiplied by g. An int8 kernel keeps its integers: |g| multiplies the channel's scale and the sign of
g flips the integers, which the narrow range [-127, 127] allows. A channel with g = 0 gets zero integers, since a scale
must be positive. Computed in float64, stored in float32.

Write a BatchNormalization that no convolution took over as Mul and Add, for files in FP16.

    y = g · x + h,    g = γ / √(σ² + ε),   h = β - g · μ

In FP16 a variance over 65504 is infinite and an ε of 1e-5 loses bits; g and h, computed here in float64, are harmless.
In float32 the node stays: one operator is faster than two, and loses nothing.
"""

import numpy as np
import onnx_ir as ir

from keras_qat.onnx.emission import keras_nodes, mark
from keras_qat.onnx.passes.constants import array_of, drop_unused, kernel_of, new_constant, replace_and_remove


class FoldAffine(ir.passes.InPlacePass):
    """Conv → BatchNormalization, Mul or Add becomes Conv."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Fold wherever a Conv's only consumer is an affine node."""
        modified = False
        for node in list(model.graph):
            conv = node.inputs[0].producer() if node.inputs and node.inputs[0] is not None else None
            if conv is None or conv.op_type != "Conv" or len(conv.outputs[0].uses()) != 1:
                continue
            affine = _affine(node, channels=_channels(conv))
            if affine is not None and not conv.outputs[0].is_graph_output():
                _fold(model.graph, conv, node, *affine)
                modified = True
        return ir.passes.PassResult(model, modified)


def _channels(conv: ir.Node) -> int:
    """How many output channels a convolution has."""
    return len(kernel_of(conv))


def _affine(node: ir.Node, channels: int) -> tuple[np.ndarray, np.ndarray] | None:
    """(g, h), each of shape (channels,), float64; `None` for a node that is not affine per channel."""
    if node.op_type == "BatchNormalization":
        return batch_norm_affine(node)
    if node.op_type not in {"Mul", "Add"} or node.inputs[1] is None or node.inputs[1].const_value is None:
        return None
    constant = array_of(node.inputs[1]).astype(np.float64)
    if constant.size != 1 and constant.shape != (1, channels, 1, 1):
        return None
    spread = np.broadcast_to(constant.reshape(-1), channels)
    return (spread, np.zeros(channels)) if node.op_type == "Mul" else (np.ones(channels), spread)


def batch_norm_affine(node: ir.Node) -> tuple[np.ndarray, np.ndarray]:
    """(g, h) of a BatchNormalization, each of shape (channels,), float64."""
    gamma, beta, mean, variance = (array_of(v).astype(np.float64) for v in node.inputs[1:5])
    g = gamma / np.sqrt(variance + node.attributes["epsilon"].as_float())
    return g, beta - g * mean


def _fold(graph: ir.Graph, conv: ir.Node, affine: ir.Node, g: np.ndarray, h: np.ndarray) -> None:
    bias = array_of(conv.inputs[2]).astype(np.float64) if len(conv.inputs) > 2 else np.zeros_like(h)  # noqa: PLR2004
    if np.any(g != 1):
        _scale_kernel(graph, conv, g)
    folded = new_constant(graph, f"{conv.name}/bias_folded", (g * bias + h).astype(np.float32))
    conv.resize_inputs(3)
    conv.replace_input_with(2, folded)
    mark(conv, keras_nodes(affine))
    replace_and_remove(graph, affine, conv.outputs[0])


def _scale_kernel(graph: ir.Graph, conv: ir.Node, g: np.ndarray) -> None:
    """Multiply the output channels (axis 0) of the kernel by g."""
    kernel = conv.inputs[1]
    if kernel is None:
        return
    dequantize = kernel.producer()
    if dequantize is None:
        w = array_of(kernel).astype(np.float64) * g.reshape(-1, 1, 1, 1)
        conv.replace_input_with(1, new_constant(graph, f"{kernel.name}_folded", w.astype(np.float32)))
        drop_unused(graph, kernel)
        return
    integers, scale = dequantize.inputs[:2]
    s = (array_of(scale).astype(np.float64) * np.abs(g)).astype(np.float32)
    sign = np.where(s > 0, np.sign(g), 0).astype(np.int8)
    q = array_of(integers) * sign.reshape(-1, 1, 1, 1)
    dequantize.replace_input_with(0, new_constant(graph, f"{conv.name}/kernel_folded", q))
    dequantize.replace_input_with(
        1, new_constant(graph, f"{conv.name}/kernel_scale_folded", np.where(s > 0, s, 1).astype(np.float32))
    )


class SpellOutBatchNorm(ir.passes.InPlacePass):
    """BatchNormalization becomes Mul → Add."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Replace every BatchNormalization that is left."""
        left = [node for node in model.graph if node.op_type == "BatchNormalization"]
        for node in left:
            _spell_out(model.graph, node)
        return ir.passes.PassResult(model, modified=bool(left))


def _spell_out(graph: ir.Graph, batch_norm: ir.Node) -> None:
    value, made = batch_norm.inputs[0], batch_norm.outputs[0]
    if value is None:
        return
    channels = -1, *[1] * (len(made.shape or ()) - 2)
    for op_type, array in zip(("Mul", "Add"), batch_norm_affine(batch_norm), strict=True):
        constant = new_constant(
            graph, f"{batch_norm.name}/{op_type.lower()}", array.astype(np.float32).reshape(channels)
        )
        name = str(batch_norm.name) if op_type == "Add" else f"{batch_norm.name}/scale"
        node = ir.node(op_type, [value, constant], name=name)
        mark(node, keras_nodes(batch_norm))
        value = node.outputs[0]
        value.name, value.type, value.shape = f"{name}/output", made.type, made.shape
        graph.insert_before(batch_norm, node)
    replace_and_remove(graph, batch_norm, value)
