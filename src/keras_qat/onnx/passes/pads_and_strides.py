"""Move padding into the windows of convolutions and max-pools, and strides out of 1x1 convolutions.

`MergePadding` merges a Pad into the `pads` of the node that reads it, where that is exact. A convolution pads with
zeros itself. A max-pool pads with -∞, if every window has at least one real pixel; a Pad with zeros gives the same
maximum only if no number is negative.

`PoolStrides` moves the stride of quantized 1x1 convolutions into one max-pool of single pixels, which reads the same
pixels. OpenVINO moves a stride that all readers of a tensor share upwards, past the multiplication of their
DequantizeLinear (`StridesOptimization` in its src/common/transformations/src/transformations/common_optimizations), and
then finds no quantized input: ResNet50's six strided 1x1 convolutions ran in float, and the integer path was broken on
both sides of each. A pooling behind the DequantizeLinear stops the stride there and runs in integers itself.
"""

import math

import onnx_ir as ir

from keras_qat.onnx import emission, walk
from keras_qat.onnx.passes.editing import array_of, kernel_of, new_node

_TOP_LEFT_BOTTOM_RIGHT = (2, 3, 6, 7)
"""Where the pads of a rank-4 NCHW tensor hold those of the pixels."""

_RANK_4_PADS = 8

_POINTWISE = (1, 1)


class MergePadding(ir.passes.InPlacePass):
    """Pad → Conv or MaxPool becomes one node."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Merge every Pad that all its readers can take over."""
        modified = False
        for node in list(model.graph):
            source = node.inputs[0] if node.op_type == "Pad" and not node.outputs[0].is_graph_output() else None
            value = None if source is None else _padded_with(node)
            if source is None or value is None:
                continue
            pads = array_of(node.inputs[1]).tolist()
            readers = [use.node for use in node.outputs[0].uses()]
            if readers and all(_can_take(reader, source, pads, value) for reader in readers):
                for reader in readers:
                    merged = [a + pads[i] for a, i in zip(_pads(reader), _TOP_LEFT_BOTTOM_RIGHT, strict=True)]
                    reader.attributes["pads"] = ir.AttrInt64s("pads", merged)
                    emission.mark(reader, emission.keras_nodes(node))
                node.outputs[0].replace_all_uses_with(source)
                model.graph.remove(node, safe=True)
                modified = True
        return ir.passes.PassResult(model, modified)


def _padded_with(node: ir.Node) -> float | None:
    """The constant that a Pad adds; `None` if it adds numbers of the tensor, as by reflection."""
    mode = node.attributes.get_string("mode", "constant")
    given = node.inputs[2] if len(node.inputs) > 2 else None  # noqa: PLR2004 - the tensor, the pads, the constant
    return None if mode != "constant" else 0.0 if given is None else float(array_of(given))


def _pads(node: ir.Node) -> list[int]:
    """The padding of a window: top, left, bottom, right."""
    return list(node.attributes["pads"].as_ints()) if "pads" in node.attributes else [0, 0, 0, 0]


def _can_take(reader: ir.Node, source: ir.Value, pads: list[int], value: float) -> bool:
    """Whether a reader of a Pad of a constant can read its source with the pads as its own."""
    only_pixels = len(pads) == _RANK_4_PADS and not any(pads[i] for i in (0, 1, 4, 5))
    if not only_pixels or "auto_pad" in reader.attributes:
        return False
    if reader.op_type == "Conv":
        return value == 0
    if reader.op_type != "MaxPool" or any(_pads(reader)):
        return False
    kernel = list(reader.attributes["kernel_shape"].as_ints()) * 2
    has_pixels = all(pads[i] < size for i, size in zip(_TOP_LEFT_BOTTOM_RIGHT, kernel, strict=True))
    maker = walk.producer(source)
    rectified = maker is not None and maker.op_type == "Relu"
    return has_pixels and (value == -math.inf or (value == 0 and rectified))


class PoolStrides(ir.passes.InPlacePass):
    """DequantizeLinear → Conv 1x1, stride s, becomes DequantizeLinear → MaxPool 1x1, stride s → Conv 1x1."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Add a pooling wherever all readers of a dequantized tensor are 1x1 convolutions of one stride."""
        modified = False
        for node in list(model.graph):
            if node.op_type != "DequantizeLinear" or node.outputs[0].is_graph_output():
                continue
            uses = node.outputs[0].uses()
            strides = {_pointwise_stride(use.node) if use.idx == 0 else None for use in uses}
            if len(strides) == 1 and (stride := strides.pop()) is not None:
                _pool(model.graph, node, [use.node for use in uses], stride)
                modified = True
        return ir.passes.PassResult(model, modified)


def _pointwise_stride(node: ir.Node) -> tuple[int, ...] | None:
    """The stride of a 1x1 convolution; `None` if it has none, or for any other node."""
    if node.op_type != "Conv" or kernel_of(node).shape[2:] != _POINTWISE or "auto_pad" in node.attributes:
        return None
    if "strides" not in node.attributes or any(_pads(node)):
        return None
    strides = tuple(node.attributes["strides"].as_ints())
    return None if strides == _POINTWISE else strides


def _pool(graph: ir.Graph, dequantize: ir.Node, convs: list[ir.Node], strides: tuple[int, ...]) -> None:
    source, after = dequantize.outputs[0], convs[0].outputs[0]
    name = f"{dequantize.name}/stride"
    pool = new_node("MaxPool", [source], name, like=source, kernel_shape=_POINTWISE, strides=strides)
    if source.shape is not None and after.shape is not None:
        pool.outputs[0].shape = ir.Shape([*source.shape[:2], *after.shape[2:]])
    emission.mark_helper(pool)
    graph.insert_after(dequantize, pool)
    for conv in convs:
        conv.replace_input_with(0, pool.outputs[0])
        conv.attributes["strides"] = ir.AttrInt64s("strides", _POINTWISE)
