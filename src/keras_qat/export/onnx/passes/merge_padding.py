"""Merge a zero Pad into the `pads` of the convolution or max-pool behind it, where that is exact.

A convolution pads with zeros itself. A max-pool pads with -∞; a zero before it makes no difference only where no number
is negative and every window sees at least one real pixel.
"""

import onnx_ir as ir

from keras_qat.export.onnx.passes.constants import array_of, replace_and_remove
from keras_qat.export.onnx.provenance import keras_nodes, mark

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
