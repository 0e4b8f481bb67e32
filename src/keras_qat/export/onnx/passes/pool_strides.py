"""Take the stride of quantized 1x1 convolutions out into one max-pool of single pixels, which reads the same pixels.

OpenVINO moves a stride that all readers of a tensor share upwards, past the multiplication of their DequantizeLinear
(`StridesOptimization` in its src/common/transformations/src/transformations/common_optimizations), and finds no
quantized input any more: ResNet50's six strided 1x1 convolutions run in float, and the integer path breaks on both
sides of each. A pooling behind the DequantizeLinear stops the stride there and runs on the integers itself.
"""

import onnx_ir as ir

from keras_qat.export.onnx.passes.constants import kernel_of
from keras_qat.export.onnx.provenance import mark_helper

_POINTWISE = [1, 1]


class PoolStrides(ir.passes.InPlacePass):
    """DequantizeLinear → Conv 1x1, stride s, becomes DequantizeLinear → MaxPool 1x1, stride s → Conv 1x1."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Pool wherever all readers of a dequantized tensor are 1x1 convolutions of one stride."""
        modified = False
        for node in list(model.graph):
            if node.op_type != "DequantizeLinear" or node.outputs[0].is_graph_output():
                continue
            uses = node.outputs[0].uses()
            strides = [_pointwise_stride(use.node) if use.idx == 0 else None for use in uses]
            if strides and strides[0] is not None and all(s == strides[0] for s in strides):
                _pool(model.graph, node, [use.node for use in uses], strides[0])
                modified = True
        return ir.passes.PassResult(model, modified)


def _pointwise_stride(node: ir.Node) -> list[int] | None:
    """The stride of a 1x1 convolution; `None` for one without, and for any other node."""
    if node.op_type != "Conv" or list(kernel_of(node).shape[2:]) != _POINTWISE or "auto_pad" in node.attributes:
        return None
    if "strides" not in node.attributes or ("pads" in node.attributes and any(node.attributes["pads"].as_ints())):
        return None
    strides = list(node.attributes["strides"].as_ints())
    return None if strides == _POINTWISE else strides


def _pool(graph: ir.Graph, dequantize: ir.Node, convs: list[ir.Node], strides: list[int]) -> None:
    source, read = dequantize.outputs[0], convs[0].outputs[0]
    name = f"{dequantize.name}/stride"
    pool = ir.node("MaxPool", [source], {"kernel_shape": _POINTWISE, "strides": strides}, name=name)
    pooled = pool.outputs[0]
    pooled.name, pooled.type = f"{name}/output", source.type
    if source.shape is not None and read.shape is not None:
        pooled.shape = ir.Shape([*source.shape[:2], *read.shape[2:]])
    mark_helper(pool)
    graph.insert_after(dequantize, pool)
    for conv in convs:
        conv.replace_input_with(0, pooled)
        conv.attributes["strides"] = ir.AttrInt64s("strides", _POINTWISE)
