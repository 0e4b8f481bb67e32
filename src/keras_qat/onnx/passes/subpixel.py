"""Compute a quantized transposed convolution as a convolution, for an engine that has integer kernels for those only.

A transposed convolution of stride s makes s pixels from each place of its input, along each axis. With pads b, pixel
u = s q + r of the output is

    y[s q + r] = Σ_j w[s j + ρ] · x[q + d - j],    d = ⌊(r + b) / s⌋,   ρ = (r + b) mod s

so the pixels of one phase r are a convolution with every s-th weight. All phases together are one convolution with s
times as many output channels, whose pixels are then interleaved (Shi et al. 2016, https://arxiv.org/abs/1609.05158).
The integers and scales of the weights stay as they are, and so does every sum, but for zeros that are added to it.
"""

import itertools
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from keras_qat.onnx.emission import keras_nodes, mark
from keras_qat.onnx.passes.editing import array_of, new_constant, new_node
from keras_qat.onnx.walk import input_at

_ACTIVATIONS = frozenset({"Relu", "Clip"})
"""Operators on each number that stay right behind the convolution, where engines fuse them."""


@dataclass(frozen=True)
class _Axis:
    """One axis of a transposed convolution as phases of a convolution.

    Args:
        stride: the number of phases.
        taps: for each phase, the weight at each place of the convolution's kernel; -1 for a zero.
        pads: before and after.
        made: how many places the convolution makes.
        kept: how many pixels of the output are kept.
    """

    stride: int
    taps: tuple[tuple[int, ...], ...]
    pads: tuple[int, int]
    made: int
    kept: int


class SubPixel(ir.passes.InPlacePass):
    """ConvTranspose → QuantizeLinear becomes Conv → Reshape → Transpose → Reshape → QuantizeLinear."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Replace every transposed convolution with an int8 kernel, a fixed input size and quantized output."""
        modified = False
        for node in list(model.graph):
            axes = _axes(node) if node.op_type == "ConvTranspose" else None
            if axes is not None:
                _replace(model.graph, node, axes)
                modified = True
        return ir.passes.PassResult(model, modified)


def _axes(node: ir.Node) -> tuple[_Axis, ...] | None:
    """The phases along each axis; `None` if the node must stay."""
    x, kernel, y = node.inputs[0], node.inputs[1], node.outputs[0]
    dequantize = None if kernel is None else kernel.producer()
    integers = None if dequantize is None else input_at(dequantize, 0)
    if x is None or x.shape is None or y.shape is None or integers is None or integers.const_value is None:
        return None
    attributes = node.attributes
    plain = attributes.get_int("group", 1) == 1 and set(attributes.get_ints("dilations", (1,))) == {1}
    sizes = [(n, m) for n, m in zip(x.shape[2:], y.shape[2:], strict=True) if isinstance(n, int) and isinstance(m, int)]
    tail = _tail(node).outputs[0]
    quantized = not tail.is_graph_output() and {use.node.op_type for use in tail.uses()} == {"QuantizeLinear"}
    if not plain or not quantized or len(sizes) < len(x.shape) - 2:
        return None
    window = array_of(integers).shape[2:]
    strides = attributes.get_ints("strides", (1,) * len(window))
    before = attributes.get_ints("pads", (0,) * 2 * len(window))[: len(window)]
    axes = [_axis(k, s, b, n, m) for k, s, b, (n, m) in zip(window, strides, before, sizes, strict=True)]
    found = tuple(axis for axis in axes if axis is not None)
    return found if len(found) == len(axes) else None


def _axis(k: int, stride: int, before: int, given: int, kept: int) -> _Axis | None:
    """The phases of one axis; `None` if the convolution would need a negative padding.

    Example:
        >>> _axis(3, 2, 0, 5, 10)
        _Axis(stride=2, taps=((2, 0), (-1, 1)), pads=(1, 0), made=5, kept=10)
    """
    weights = {}
    for r in range(stride):
        d, rho = divmod(r + before, stride)
        weights.update({(r, d - j): stride * j + rho for j in range(-(-(k - rho) // stride))})
    places = [place for _, place in weights]
    low, high = min(places), max(places)
    made = -(-kept // stride)
    pads = (-low, made - given + high)
    if min(pads) < 0:
        return None
    taps = tuple(tuple(weights.get((r, place), -1) for place in range(low, high + 1)) for r in range(stride))
    return _Axis(stride, taps, pads, made, kept)


def _tail(node: ir.Node) -> ir.Node:
    """The activation that alone reads a node's output, or else the node."""
    uses = list(node.outputs[0].uses())
    return uses[0].node if len(uses) == 1 and uses[0].node.op_type in _ACTIVATIONS else node


def _replace(graph: ir.Graph, node: ir.Node, axes: tuple[_Axis, ...]) -> None:
    dequantize = node.inputs[1].producer() if node.inputs[1] is not None else None
    if dequantize is None:
        return
    q, s = (array_of(value) for value in dequantize.inputs[:2])
    phases = int(np.prod([axis.stride for axis in axes]))
    constants = [
        new_constant(graph, f"{node.name}/kernel_of_phases", _kernel(q, axes)),
        new_constant(graph, f"{node.name}/kernel_of_phases_scale", np.tile(s, phases)),
        new_constant(graph, f"{node.name}/kernel_of_phases_zero_point", np.zeros(phases * s.size, np.int8)),
    ]
    made = [q.shape[1] * phases, *(axis.made for axis in axes)]
    batch = None if node.outputs[0].shape is None else node.outputs[0].shape[0]
    names = keras_nodes(node)
    weights = ir.node("DequantizeLinear", constants, {"axis": 0}, name=f"{node.name}/kernel_of_phases/DequantizeLinear")
    inputs = [node.inputs[0], weights.outputs[0]]
    bias = input_at(node, 2)
    if bias is not None:
        inputs.append(new_constant(graph, f"{node.name}/bias_of_phases", np.tile(array_of(bias), phases)))
    conv = ir.node(
        "Conv",
        inputs,
        {
            "kernel_shape": [len(axis.taps[0]) for axis in axes],
            "strides": [1] * len(axes),
            "pads": [axis.pads[0] for axis in axes] + [axis.pads[1] for axis in axes],
        },
        name=node.name,
    )
    conv.outputs[0].name, weights.outputs[0].name = f"{node.name}/phases", f"{weights.name}/output"
    conv.outputs[0].dtype = weights.outputs[0].dtype = ir.DataType.FLOAT
    conv.outputs[0].shape = ir.Shape([batch, *made])
    for one in (weights, conv):
        mark(one, names)
    tail = _tail(node)
    graph.insert_before(node, [weights, conv])
    if tail is node:
        last, readers = conv.outputs[0], list(node.outputs[0].uses())
    else:
        tail.replace_input_with(0, conv.outputs[0])
        tail.outputs[0].shape = conv.outputs[0].shape
        last, readers = tail.outputs[0], list(tail.outputs[0].uses())
    for new in _interleave(graph, str(node.name), last, q.shape[1], axes):
        mark(new, keras_nodes(tail))
        graph.insert_before(readers[0].node, new)
        last = new.outputs[0]
    for reader, index in readers:
        reader.replace_input_with(index, last)
    graph.remove(node, safe=True)


def _kernel(q: np.ndarray, axes: tuple[_Axis, ...]) -> np.ndarray:
    """The integers (in, out, …) as (phases · out, in, …), with zeros where a phase has no weight."""
    channels, made, *_ = q.shape
    size = [len(axis.taps[0]) for axis in axes]
    strides = [axis.stride for axis in axes]
    weights = q.transpose(*range(2, q.ndim), 1, 0)
    kernel = np.zeros((*strides, *size, made, channels), q.dtype)
    for phase in itertools.product(*map(range, strides)):
        for place in itertools.product(*map(range, size)):
            taps = tuple(axis.taps[r][i] for axis, r, i in zip(axes, phase, place, strict=True))
            if min(taps) >= 0:
                kernel[phase + place] = weights[taps]
    count = len(axes)
    in_front = (*range(count), 2 * count, 2 * count + 1, *range(count, 2 * count))
    return np.ascontiguousarray(kernel.transpose(in_front)).reshape(-1, channels, *size)


def _interleave(graph: ir.Graph, name: str, x: ir.Value, channels: int, axes: tuple[_Axis, ...]) -> list[ir.Node]:
    """The nodes that put the pixels of the phases, (phase …, channel, place …), side by side."""
    count, strides, made = len(axes), [axis.stride for axis in axes], [axis.made for axis in axes]
    order = [0, count + 1, *(n for i in range(count) for n in (count + 2 + i, 1 + i))]
    joined = [m * s for m, s in zip(made, strides, strict=True)]
    apart, together = (
        new_constant(graph, f"{name}/{what}", np.array([0, *sizes], np.int64))
        for what, sizes in (("phases_apart", [*strides, channels, *made]), ("phases_together", [channels, *joined]))
    )
    nodes = [new_node("Reshape", [x, apart], f"{name}/apart", like=x)]
    nodes.append(new_node("Transpose", [nodes[-1].outputs[0]], f"{name}/interleave", like=x, perm=order))
    nodes.append(new_node("Reshape", [nodes[-1].outputs[0], together], f"{name}/together", like=x))
    kept = [axis.kept for axis in axes]
    if kept != joined:
        ends, starts, cut = (
            new_constant(graph, f"{name}/{what}", np.array(numbers, np.int64))
            for what, numbers in (("ends", kept), ("starts", [0] * count), ("axes", list(range(2, count + 2))))
        )
        nodes.append(new_node("Slice", [nodes[-1].outputs[0], starts, ends, cut], f"{name}/kept", like=x))
    batch = None if x.shape is None else x.shape[0]
    for node, shape in zip(
        nodes,
        (
            [batch, *strides, channels, *made],
            [batch, channels, *(n for pair in zip(made, strides, strict=True) for n in pair)],
            [batch, channels, *joined],
            [batch, channels, *kept],
        ),
        strict=False,
    ):
        node.outputs[0].shape = ir.Shape(shape)
    return nodes
