"""Turn a float32 graph into a strongly typed FP16 one, in two passes.

`HalfScales` makes the scales of Q/DQ nodes numbers that FP16 can represent. Folded batch norms leave per-channel weight
scales far below FP16's smallest normal number t = 2^-14. There FP16 has only the multiples of 2^-24, so a scale is
raised to the next of them and its channel requantized:

    s' = fp16(s)                      for s ≥ t
    s' = 2^-24 · ceil(s / 2^-24)      for s < t
    q' = round(q · s / s')

No weight moves by more than s' / 2, as in the quantization before. A scale of t or more changes by at most 2^-11 of
itself, so that q · s / s' is within 127 · 2^-11 = 0.06 of q, and no integer changes. Raising small scales to t itself
would move weights by up to t / 2 = 3.1e-5, which ruins ResNet50's first convolution (docs/architecture.md).

The scale of an activation can't be raised in this way, since its integers are computed at run time. It must be a normal
number of FP16, and its largest number must be finite. A tensor that was all zero in calibration gets the scale 1, and
stays zero.

`HalfPrecision` then converts every float constant and tensor, and puts a Cast at inputs and outputs. What the schema
of an operator fixes to float32 (such as the scales of Resize) stays. A finite constant over 65504 would become
infinite, so it is refused with the name of its layer; one under 6e-8 becomes 0, 3e-8 away.
"""

import numpy as np
import onnx
import onnx_ir as ir

from keras_qat.errors import UnsupportedModelError
from keras_qat.graph import OUTPUT
from keras_qat.layers import SMALLEST_AMAX
from keras_qat.onnx.emission import keras_nodes, mark
from keras_qat.onnx.passes.editing import array_of, new_constant, new_node, set_array
from keras_qat.types import IoDtype

_SMALLEST = float(np.finfo(np.float16).smallest_normal)
_STEP = float(np.finfo(np.float16).smallest_subnormal)
_LARGEST = float(np.finfo(np.float16).max)

_FLOAT, _HALF = ir.DataType.FLOAT, ir.DataType.FLOAT16


def half_scale(s: float) -> np.float32:
    """The FP16 scale that replaces the float32 scale of an activation, as a float32 number.

    Example:
        >>> float(half_scale(0.1)), float(half_scale(1e-32))
        (0.0999755859375, 1.0)
    """
    return np.float32(1) if s <= SMALLEST_AMAX else np.float32(np.float16(s))


class HalfScales(ir.passes.InPlacePass):
    """Scales → numbers that FP16 can represent, still stored in float32."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Change the scale of every Q/DQ node, and the integers of channels whose scale had to be raised."""
        modified = False
        for node in model.graph:
            if node.op_type == "DequantizeLinear" and node.inputs[0] is not None:
                change = _activation if node.inputs[0].const_value is None else _weights
                change(node, *(value for value in node.inputs if value is not None))
                modified = True
        return ir.passes.PassResult(model, modified)


def _activation(dequantize: ir.Node, _: ir.Value, scale: ir.Value, zero_point: ir.Value) -> None:
    """Round the scale of an activation.

    Raises:
        UnsupportedModelError: If the scale or the largest number of the activation is out of FP16's range.
    """
    s, z = array_of(scale), array_of(zero_point)
    limits = np.iinfo(z.dtype)
    largest = float(s) * max(limits.max - int(z), int(z) - limits.min)
    halved = np.array(half_scale(float(s)), np.float32)
    if halved < _SMALLEST or largest > _LARGEST:
        bound = f"its scale is under {_SMALLEST:.2g}" if halved < _SMALLEST else f"it is over {_LARGEST:.0f}"
        raise UnsupportedModelError(
            f"The quantized tensor {_layer(dequantize)!r} doesn't fit FP16: {bound}. Received: the scale "
            f'{float(s):.3g}, a range up to {largest:.3g}. Export with precision="fp32".'
        )
    set_array(scale, halved)


def _weights(dequantize: ir.Node, integers: ir.Value, scale: ir.Value, _: ir.Value) -> None:
    """Round or raise the scales of a kernel, and requantize the channels whose scale was raised.

    Raises:
        UnsupportedModelError: If the largest number of the kernel is out of FP16's range.
    """
    q, s = array_of(integers), array_of(scale).astype(np.float64)
    q_max = np.iinfo(np.int8).max
    if np.any(s * q_max > _LARGEST):
        raise UnsupportedModelError(
            f"The weights of {_layer(dequantize)!r} don't fit FP16. Received: weights up to {s.max() * q_max:.3g}; "
            f'FP16 ends at {_LARGEST:.0f}. Export with precision="fp32".'
        )
    raised = np.where(s < _SMALLEST, _STEP * np.ceil(s / _STEP), s.astype(np.float16))
    axis = dequantize.attributes["axis"].as_int()
    spread = [-1 if a == axis else 1 for a in range(q.ndim)]
    requantized = np.round(q * (s / raised).reshape(spread)).astype(q.dtype)
    set_array(integers, requantized)
    set_array(scale, raised.astype(np.float32))


def _layer(node: ir.Node) -> str:
    """The name of the Keras node that a node stands for, for messages."""
    return next(iter(keras_nodes(node)), str(node.name))


class HalfPrecision(ir.passes.InPlacePass):
    """float32 → float16.

    Args:
        io_dtype: the element type of inputs and outputs; with "float32" each of them gets a Cast.
    """

    def __init__(self, io_dtype: IoDtype) -> None:
        super().__init__()
        self.io_dtype = io_dtype

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Convert the whole graph."""
        graph = model.graph
        opset = graph.opset_imports[""]
        for constant in list(graph.initializers.values()):
            if constant.const_value is not None and constant.const_value.dtype is _FLOAT:
                _retype_constant(graph, constant, opset)
        for node in graph:
            if node.op_type == "Cast" and node.attributes["to"].as_int() == _FLOAT:
                node.attributes["to"] = ir.AttrInt64("to", int(_HALF))
            for value in node.outputs:
                value.dtype = _HALF if value.dtype in {_FLOAT, None} else value.dtype
        _retype_edges(graph, self.io_dtype)
        return ir.passes.PassResult(model, modified=True)


def _retype_constant(graph: ir.Graph, constant: ir.Value, opset: int) -> None:
    """Store a constant in FP16, and a copy in float32 for operators that take only float32."""
    uses = list(constant.uses())
    fixed = [use for use in uses if not _may_be_half(use.node, _schema(use.node, opset), use.idx)]
    if len(fixed) < len(uses):
        if fixed:
            float32 = new_constant(graph, f"{constant.name}_fp32", array_of(constant))
            for node, index in fixed:
                node.replace_input_with(index, float32)
        layer = _layer(next(use.node for use in uses if use not in fixed))
        set_array(constant, _half(constant, layer))


def _schema(node: ir.Node, opset: int) -> onnx.defs.OpSchema | None:
    """The schema of a node's operator; `None` for an operator that ONNX doesn't define."""
    if node.domain or not onnx.defs.has(node.op_type):
        return None
    return onnx.defs.get_schema(node.op_type, opset)


def _may_be_half(node: ir.Node, schema: onnx.defs.OpSchema | None, index: int) -> bool:
    """Whether an input may be FP16; `False` if the schema fixes it to float32.

    Raises:
        UnsupportedModelError: If the operator has no FP16 form.
    """
    if schema is None:
        return True
    kind = schema.inputs[min(index, len(schema.inputs) - 1)].type_str
    if kind == "tensor(float)":
        return False
    allowed = {c.type_param_str: c.allowed_type_strs for c in schema.type_constraints}.get(kind, [kind])
    if "tensor(float16)" not in allowed:
        raise UnsupportedModelError(
            f"The layer {_layer(node)!r} has no FP16 form. Received: the ONNX operator {node.op_type}, version "
            f'{schema.since_version}. Export with precision="fp32".'
        )
    return True


def _half(constant: ir.Value, layer: str) -> np.ndarray:
    """The numbers of a constant in FP16.

    Raises:
        UnsupportedModelError: If a finite number would become infinite.
    """
    array = array_of(constant)
    finite = np.abs(array[np.isfinite(array)])
    if finite.size and finite.max() > _LARGEST:
        raise UnsupportedModelError(
            f"The layer {layer!r} doesn't fit FP16. Received: {constant.name!r} with numbers up to {finite.max():.4g}; "
            f'FP16 ends at {_LARGEST:.0f}. Export with precision="fp32".'
        )
    return array.astype(np.float16)


def _retype_edges(graph: ir.Graph, io_dtype: IoDtype) -> None:
    """Give inputs and outputs the type `io_dtype`, with a Cast where the graph inside has another type.

    An input that the model reads in another type than float32, such as uint8, keeps it.
    """
    for value in graph.inputs:
        if value.dtype is not _FLOAT:
            continue
        if io_dtype == "float16":
            value.dtype = _HALF
            continue
        uses = list(value.uses())
        inner = _cast(value, _HALF, f"{value.name}/to_float16", str(value.name))
        for node, index in uses:
            node.replace_input_with(index, inner.outputs[0])
        graph.insert_before(graph[0], inner)
    if io_dtype == "float16":
        return
    for index, value in enumerate(graph.outputs):
        if value.dtype is not _HALF:
            continue
        name = str(value.name)
        value.name = f"{name}/float16"
        outer = _cast(value, _FLOAT, f"{name}/to_float32", OUTPUT)
        outer.outputs[0].name = name
        graph.append(outer)
        graph.outputs[index] = outer.outputs[0]


def _cast(value: ir.Value, dtype: ir.DataType, name: str, keras_node: str) -> ir.Node:
    node = new_node("Cast", [value], name, like=value, to=dtype)
    node.outputs[0].dtype = dtype
    mark(node, [keras_node])
    return node
