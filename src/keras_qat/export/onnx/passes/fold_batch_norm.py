"""Fold BatchNormalization into the convolution before it, exactly.

With g = γ / √(σ² + ε) for each output channel,

    g · (Σ w·x + b - μ) + β  =  Σ (g·w)·x  +  g · (b - μ) + β.

A float kernel is multiplied by g. An int8 kernel keeps its integers: |g| multiplies the channel's scale and the sign of
g flips the integers, which the narrow range [-127, 127] allows. A channel with g = 0 gets zero integers, since a scale
must be positive. Computed in float64, stored in float32.
"""

import numpy as np
import onnx_ir as ir

from keras_qat.export.onnx.passes.constants import array_of, new_constant, replace_and_remove


class FoldBatchNorm(ir.passes.InPlacePass):
    """Conv → BatchNormalization becomes Conv."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Fold wherever a Conv's only consumer is a BatchNormalization."""
        modified = False
        for node in list(model.graph):
            if node.op_type != "BatchNormalization":
                continue
            conv = node.inputs[0].producer() if node.inputs[0] is not None else None
            if conv is not None and conv.op_type == "Conv" and len(conv.outputs[0].uses()) == 1:
                _fold(model.graph, conv, node)
                modified = True
        return ir.passes.PassResult(model, modified)


def _fold(graph: ir.Graph, conv: ir.Node, norm: ir.Node) -> None:
    gamma, beta, mean, variance = (array_of(v).astype(np.float64) for v in norm.inputs[1:5])
    g = gamma / np.sqrt(variance + norm.attributes["epsilon"].as_float())
    bias = array_of(conv.inputs[2]).astype(np.float64) if len(conv.inputs) > 2 else np.zeros_like(mean)  # noqa: PLR2004
    _scale_kernel(graph, conv, g)
    folded = new_constant(graph, f"{conv.name}/bias_folded", (g * (bias - mean) + beta).astype(np.float32))
    conv.resize_inputs(3)
    conv.replace_input_with(2, folded)
    replace_and_remove(graph, norm, conv.outputs[0])


def _scale_kernel(graph: ir.Graph, conv: ir.Node, g: np.ndarray) -> None:
    """Multiply the output channels (axis 0) of the kernel by g."""
    kernel = conv.inputs[1]
    if kernel is None:
        return
    dequantize = kernel.producer()
    if dequantize is None:
        w = array_of(kernel).astype(np.float64) * g.reshape(-1, 1, 1, 1)
        conv.replace_input_with(1, new_constant(graph, f"{kernel.name}_folded", w.astype(np.float32)))
        return
    integers, scale = dequantize.inputs[:2]
    s = (array_of(scale).astype(np.float64) * np.abs(g)).astype(np.float32)
    sign = np.where(s > 0, np.sign(g), 0).astype(np.int8)
    q = array_of(integers) * sign.reshape(-1, 1, 1, 1)
    dequantize.replace_input_with(0, new_constant(graph, f"{conv.name}/kernel_folded", q))
    dequantize.replace_input_with(
        1, new_constant(graph, f"{conv.name}/kernel_scale_folded", np.where(s > 0, s, 1).astype(np.float32))
    )
