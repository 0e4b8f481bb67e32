"""Merge a zero Pad into the `pads` of the convolution or max-pool behind it, where that is exact.

A convolution pads with zeros itself. A max-pool pads with -∞; a zero before it makes no difference only where no number
is negative and every window sees at least one real pixel.

Take the stride of quantized 1x1 convolutions out into one max-pool of single pixels, which reads the same pixels.

OpenVINO moves a stride that all readers of a tensor share upwards, past the multiplication of their DequantizeLinear
(`StridesOptimization` in its src/common/transformations/src/transformations/common_optimizations), and finds no
quantized input any more: ResNet50's six strided 1x1 convolutions run in float, and the integer path breaks on both
sides of each. A pooling behind the DequantizeLinear stops the stride there and runs on the integers itself.
"""

import onnx_ir as ir

from keras_qat.onnx.emission import keras_nodes, mark, mark_helper
from keras_qat.onnx.passes.constants import array_of, kernel_of, replace_and_remove

_HEIGHT_AND_WIDTH = [2, 3, 6, 7]
"""Where the pads of a rank-4 NCHW tensor hold top, left, bottom, right."""

_RANK_4_PADS = 8


class MergePadding(ir.passes.InPlacePass):
    """Pad → Conv or MaxPool becomes one node."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Merge wherever all consumers of a Pad can take it over."""
        modified = False
        for node in list(model.graph):
            if node.op_type != "Pad" or node.outputs[0].is_graph_output() or node.inputs[0] is None:
                continue
            pads = array_of(node.inputs[1]).tolist()
            consumers = [use.node for use in node.outputs[0].uses()]
            if consumers and all(_can_take(consumer, node.inputs[0], pads) for consumer in consumers):
                for consumer in consumers:
                    own = _pads(consumer)
                    merged = [a + pads[i] for a, i in zip(own, _HEIGHT_AND_WIDTH, strict=True)]
                    consumer.attributes["pads"] = ir.AttrInt64s("pads", merged)
                    mark(consumer, keras_nodes(node))
                source = node.inputs[0]
                name, shape = source.name, source.shape
                replace_and_remove(model.graph, node, source)
                source.name, source.shape = name, shape
                modified = True
        return ir.passes.PassResult(model, modified)


def _pads(node: ir.Node) -> list[int]:
    return list(node.attributes["pads"].as_ints()) if "pads" in node.attributes else [0, 0, 0, 0]


def _can_take(consumer: ir.Node, source: ir.Value, pads: list[int]) -> bool:
    only_space = len(pads) == _RANK_4_PADS and not any(pads[i] for i in (0, 1, 4, 5))
    if not only_space or "auto_pad" in consumer.attributes:
        return False
    if consumer.op_type == "Conv":
        return True
    if consumer.op_type != "MaxPool" or any(_pads(consumer)):
        return False
    kernel = list(consumer.attributes["kernel_shape"].as_ints()) * 2
    sees_pixels = all(pads[i] < k for i, k in zip(_HEIGHT_AND_WIDTH, kernel, strict=True))
    return sees_pixels and _never_negative(source)


def _never_negative(value: ir.Value) -> bool:
    """Whether a value is made by Relu, seen through Q/DQ pairs."""
    producer = value.producer()
    while producer is not None and producer.op_type in {"DequantizeLinear", "QuantizeLinear"}:
        source = producer.inputs[0]
        producer = None if source is None else source.producer()
    return producer is not None and producer.op_type == "Relu"


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
