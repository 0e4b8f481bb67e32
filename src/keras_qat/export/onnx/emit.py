"""Keras model → `onnx_ir.Model`: one converter a layer, then the passes."""

from typing import Any

import onnx_ir as ir

from keras_qat._version import __version__
from keras_qat.errors import UserError
from keras_qat.export.onnx import converters as _converters  # noqa: F401  (registers them)
from keras_qat.export.onnx.emission import Emission, Step
from keras_qat.export.onnx.layout import layout_of, named_shape
from keras_qat.export.onnx.passes import passes_for
from keras_qat.export.onnx.registry import find_converter
from keras_qat.graph import Trace, trace
from keras_qat.targets import Target
from keras_qat.types import OpKind

OPSETS = range(13, 22)
"""Opset 13 brought per-channel DequantizeLinear; 21 is the newest that was tried."""

_IR_VERSION = 8
"""The IR version of opset 17's time, so that engines of the last years read the file."""

_IR_VERSION_OF_OPSET_21 = 10


def emit(model: Any, *, target: Target | None = None, opset: int = 17) -> ir.Model:
    """Translate a Keras model, float or quantized.

    Args:
        model: a Functional or Sequential `keras.Model`.
        target: the engine whose preferences the file follows; `None` for a float model.
        opset: ONNX operator set, 13 to 21.

    Returns:
        The model, batch norms folded and paddings merged. Node names are the Keras layer names, the batch axis is
        dynamic and named `batch`, inputs and outputs keep Keras's names and layout.

    Raises:
        UnsupportedModelError: a layer has no converter.
        UserError: the opset is out of range.
    """
    require_opset(opset)
    traced = trace(model)
    emission, inputs, outputs = _emit_nodes(traced, opset)
    graph = ir.Graph(
        inputs=inputs,
        outputs=outputs,
        nodes=emission.tape.nodes,
        initializers=emission.tape.initializers,
        opset_imports={"": opset},
        name=traced.name,
    )
    file = ir.Model(
        graph,
        ir_version=_IR_VERSION if opset < OPSETS[-1] else _IR_VERSION_OF_OPSET_21,
        producer_name="keras-qat",
        producer_version=__version__,
    )
    if target is not None:
        file.metadata_props["keras_qat.target"] = target.name
    for one_pass in passes_for(target):
        one_pass(file)
    return file


def require_opset(opset: int) -> None:
    """Refuse an operator set that the emitter doesn't write.

    Raises:
        UserError: it is out of range.
    """
    if opset not in OPSETS:
        raise UserError(f"The opset must be from {OPSETS[0]} to {OPSETS[-1]}. Received: opset={opset}.")


def _emit_nodes(traced: Trace, opset: int) -> tuple[Emission, list[ir.Value], list[ir.Value]]:
    """Convert every call in order; the passes come later."""
    emission = Emission(opset, layout_of(traced))
    values: dict[str, ir.Value] = {}
    inputs: list[ir.Value] = []
    for node in traced.graph.nodes:
        call = traced.calls[node.name]
        shape = call.output_shapes[0]
        if node.kind is OpKind.INPUT:
            value = ir.val(emission.unique(node.name), ir.DataType.FLOAT, named_shape(shape))
            inputs.append(value)
            values[node.outputs[0]] = emission.to_file_layout(value, shape, node.name)
            continue
        step = Step(
            name=node.name,
            layer=call.operation,
            inputs=tuple(values[t] for t in node.inputs),
            input_shapes=tuple(traced.shape(t) for t in node.inputs),
            output_shape=shape,
            args=call.args,
            kwargs=call.kwargs,
        )
        made = find_converter(call.operation)(emission, step)
        values.update(zip(node.outputs, made if isinstance(made, tuple) else (made,), strict=True))
    outputs = []
    for name in traced.graph.outputs:
        value = emission.to_keras_layout(values[name], traced.shape(name), name)
        if value in outputs or value in inputs:
            value = emission.op("Identity", [value], f"{name}/output")
        value.name = name if name not in {i.name for i in inputs} else f"{name}/output"
        outputs.append(value)
    return emission, inputs, outputs
