"""Turn a float32 graph into a strongly typed FP16 one: every float constant and tensor, and Casts at the edges.

What the operator's schema fixes to float32 (such as the scales of Resize) stays. A finite constant over 65504 would
become infinite, so it is refused with the name of its layer; one under 6e-8 becomes 0, 3e-8 away.
"""

import numpy as np
import onnx
import onnx_ir as ir

from keras_qat.errors import UnsupportedModelError
from keras_qat.export.onnx.passes.constants import array_of, new_constant, set_array
from keras_qat.export.onnx.provenance import keras_nodes, mark
from keras_qat.graph import OUTPUT
from keras_qat.types import IoDtype

_FLOAT, _HALF = ir.DataType.FLOAT, ir.DataType.FLOAT16


class HalfPrecision(ir.passes.InPlacePass):
    """float32 → float16.

    Args:
        io_dtype: element type of the inputs and outputs; "float32" puts a Cast at each.
    """

    def __init__(self, io_dtype: IoDtype) -> None:
        super().__init__()
        self.io_dtype = io_dtype

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Retype the whole graph."""
        graph = model.graph
        opset = graph.opset_imports[""]
        for constant in list(graph.initializers.values()):
            if constant.const_value is not None and constant.const_value.dtype is _FLOAT:
                _retype_constant(graph, constant, opset)
        for node in graph:
            for value in node.outputs:
                value.dtype = _HALF if value.dtype in {_FLOAT, None} else value.dtype
        _retype_edges(graph, self.io_dtype)
        return ir.passes.PassResult(model, modified=True)


def _retype_constant(graph: ir.Graph, constant: ir.Value, opset: int) -> None:
    """Store a constant in FP16, and once more in float32 for an operator that takes nothing else."""
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
    """The operator's definition; `None` for one that ONNX doesn't define."""
    if node.domain or not onnx.defs.has(node.op_type):
        return None
    return onnx.defs.get_schema(node.op_type, opset)


def _may_be_half(node: ir.Node, schema: onnx.defs.OpSchema | None, index: int) -> bool:
    """Whether an input takes FP16; `False` where the schema fixes it to float32.

    Raises:
        UnsupportedModelError: the operator has no FP16 form.
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
    """The constant in FP16.

    Raises:
        UnsupportedModelError: a finite number would become infinite.
    """
    array = array_of(constant)
    limit = float(np.finfo(np.float16).max)
    finite = np.abs(array[np.isfinite(array)])
    if finite.size and finite.max() > limit:
        raise UnsupportedModelError(
            f"The layer {layer!r} doesn't fit FP16. Received: {constant.name!r} with numbers up to {finite.max():.4g}; "
            f'FP16 ends at {limit:.0f}. Export with precision="fp32".'
        )
    return array.astype(np.float16)


def _layer(node: ir.Node) -> str:
    return next(iter(keras_nodes(node)), str(node.name))


def _retype_edges(graph: ir.Graph, io_dtype: IoDtype) -> None:
    """Give inputs and outputs the wanted type, with a Cast where the graph inside has another."""
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
    node = ir.node("Cast", [value], {"to": dtype}, name=name)
    mark(node, [keras_node])
    node.outputs[0].name, node.outputs[0].dtype, node.outputs[0].shape = f"{name}/output", dtype, value.shape
    return node
