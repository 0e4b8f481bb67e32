"""Translate a Keras model to an `onnx_ir.Model`: a converter for each call, then the passes."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, get_args

import onnx_ir as ir

from keras_qat._version import __version__
from keras_qat.errors import UserError, require_whole
from keras_qat.graph import OUTPUT, Trace, trace
from keras_qat.layers import FakeQuantize
from keras_qat.onnx import converters as _converters  # noqa: F401  (importing registers the converters)
from keras_qat.onnx import layout, passes, reader
from keras_qat.onnx.emission import CONVERTERS, Emission, Step, convert, file_dtype, find_converter, input_dtype, mark
from keras_qat.targets import Target
from keras_qat.types import IoDtype, Normalization, OpKind, Precision

OPSETS = range(13, 22)
"""Opset 13 introduced per-channel DequantizeLinear; 21 is the newest that was tested."""

_DEFAULT_OPSET: Mapping[Precision, int] = {"fp32": 17, "fp16": 19}
"""Opset 19 introduced QuantizeLinear and DequantizeLinear with scales in FP16."""

_IR_VERSION = 8
"""The IR version that was current with opset 17, so that engines of the last years read the file."""

_IR_VERSION_OF_OPSET_21 = 10

_PREFIX = "keras_qat."
"""Of every key in the metadata."""


def emit(
    model: Any,
    *,
    target: Target | None = None,
    opset: int | None = None,
    precision: Precision = "fp32",
    io_dtype: IoDtype = "float32",
    metadata: Mapping[str, str] | None = None,
    normalization: Normalization | None = None,
) -> ir.Model:
    """Translate a Keras model, float or quantized.

    Args:
        model: a Functional or Sequential `keras.Model`.
        target: the engine whose preferences the file follows; `None` for a float model.
        opset: the ONNX operator set, 13 to 21; the default is 17, or 19 for FP16.
        precision: the floating-point type of the scales and of what isn't quantized.
        io_dtype: the element type of inputs and outputs; "float16" only with FP16.
        metadata: texts for the file's `metadata_props`, by keys that begin with "keras_qat.".
        normalization: what the file does to the uint8 pixels that it reads; `None` for an input in float.

    Returns:
        The model, with batch norms folded and paddings merged. Nodes have the names of the Keras layers, the batch axis
        is dynamic and named `batch`, and inputs and outputs keep Keras's names and layout.

    Raises:
        UnsupportedModelError: If a layer has no converter, or the model has numbers that FP16 can't represent.
        UserError: If the model was quantized for another target, if the opset is out of range, if `io_dtype` and
            `precision` can't be combined, if `metadata` has a key that isn't allowed, or if `normalization` is given
            and the model hasn't exactly one image input.
    """
    opset = require_opset(opset, precision)
    if io_dtype not in get_args(IoDtype) or (io_dtype == "float16" and precision != "fp16"):
        raise UserError(
            f"Inputs and outputs can't have that type. Received: io_dtype={io_dtype!r}, precision={precision!r}. "
            'Use "float32", or "float16" with precision="fp16".'
        )
    metadata = _require_keys(metadata or {})
    traced = trace(model)
    _require_target(traced, target)
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
    file.metadata_props[reader.PRECISION_KEY] = precision
    if target is not None:
        file.metadata_props[reader.TARGET_KEY] = target.name
    file.metadata_props.update(metadata)
    for one_pass in passes.passes_for(target, precision, io_dtype, normalization):
        one_pass(file)
    return file


def _require_target(traced: Trace, target: Target | None) -> None:
    """Refuse a model that was quantized for another engine, which would run the file in float or not at all."""
    operations = (call.operation for call in traced.calls.values())
    made_for = {str(layer.target) for layer in operations if isinstance(layer, FakeQuantize) and layer.target}
    if target is not None and made_for - {target.name}:
        names = " and ".join(sorted(made_for))
        raise UserError(
            f"The model was quantized for another engine. Received: target={target.name!r}, and the model "
            f"{traced.name!r} with the Q/DQ pairs of {names}. Quantize the float model for {target.name}, or export "
            f"this one for {names}."
        )


def has_converter(layer_type: type) -> bool:
    """Whether a converter is registered for exactly this type of layer or operation.

    Example:
        >>> import keras
        >>> has_converter(keras.layers.Conv2D), has_converter(keras.layers.TextVectorization)
        (True, False)
    """
    return layer_type in CONVERTERS


def require_exportable(model: Any) -> None:
    """Refuse a model that can't be exported, before it is calibrated or trained for that.

    Every layer and operation is converted, at the latest opset; the result is dropped.

    Args:
        model: a model that `trace` reads. It is not changed.

    Raises:
        UnsupportedModelError: If a layer can be neither exported nor read, or its settings can't be exported. The
            message names it, with the nested models and layers around it.

    Example:
        >>> import keras
        >>> x = keras.Input((4,), name="x")
        >>> require_exportable(keras.Model(x, keras.layers.Dense(2)(x)))
    """
    traced = trace(model)
    calls = [traced.calls[node.name] for node in traced.graph.nodes if node.kind is not OpKind.INPUT]
    for call in calls:
        find_converter(call.operation, "/".join(call.path), call.unread)
    _emit_nodes(traced, OPSETS[-1])


def require_opset(opset: int | None, precision: Precision = "fp32") -> int:
    """The operator set of a file.

    Args:
        opset: the wanted operator set; `None` for the default of the precision.
        precision: the floating-point type of the file.

    Raises:
        UserError: If the precision is unknown, or the opset is out of its range.

    Example:
        >>> require_opset(None), require_opset(None, "fp16"), require_opset(21, "fp16")
        (17, 19, 21)
    """
    if precision not in _DEFAULT_OPSET:
        raise UserError(f"Unknown precision. Received: {precision!r}. Choose one of: {', '.join(_DEFAULT_OPSET)}.")
    default = _DEFAULT_OPSET[precision]
    if opset is None:
        return default
    opset = require_whole("opset", opset)
    lowest = default if precision == "fp16" else OPSETS[0]
    if not lowest <= opset <= OPSETS[-1]:
        why = "" if precision == "fp32" else " for FP16, since scales in FP16 came with 19"
        raise UserError(f"The opset must be from {lowest} to {OPSETS[-1]}{why}. Received: opset={opset}.")
    return opset


def _require_keys(metadata: Mapping[str, str]) -> Mapping[str, str]:
    """Return the metadata if all its keys may be given.

    Raises:
        UserError: If a key doesn't begin with the package's prefix, or is one that the export writes itself.
    """
    for key in metadata:
        if not key.startswith(_PREFIX) or key in {reader.PRECISION_KEY, reader.TARGET_KEY}:
            raise UserError(
                f"The file can't have that metadata. Received: the key {key!r}. Begin keys with {_PREFIX!r}; "
                f"{reader.PRECISION_KEY!r} and {reader.TARGET_KEY!r} are written by the export itself."
            )
    return metadata


def _emit_nodes(traced: Trace, opset: int) -> tuple[Emission, list[ir.Value], list[ir.Value]]:
    """Convert every call in order, without the passes.

    Returns:
        The emission, and the inputs and outputs of the graph.
    """
    emission = Emission(opset, layout.layout_of(traced))
    values: dict[str, ir.Value] = {}
    inputs: list[ir.Value] = []
    for node in traced.graph.nodes:
        call = traced.calls[node.name]
        shape = call.output_shapes[0]
        if node.kind is OpKind.INPUT:
            dtype = input_dtype(traced.dtype(node.outputs[0]))
            value = ir.val(emission.unique(node.name), dtype, layout.named_shape(shape))
            inputs.append(value)
            with _marking(emission, node.name):
                if dtype.is_floating_point():
                    value = emission.cast(value, ir.DataType.FLOAT, node.name, shape)
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
            output_shapes=call.output_shapes,
            dtype=file_dtype(call.output_dtypes[0]),
            path="/".join(call.path) or None,
            unread=call.unread,
        )
        with _marking(emission, node.name):
            converted = convert(emission, step)
        values.update(zip(node.outputs, converted, strict=True))
    outputs: list[ir.Value] = []
    for name in traced.graph.outputs:
        with _marking(emission, OUTPUT):
            value = emission.to_keras_layout(values[name], traced.shape(name), name)
            if value in outputs or value in inputs:
                value = emission.op("Identity", [value], f"{name}/output", dtype=value.dtype)
        if value.shape is None:  # which ONNX requires of an output
            value.shape = ir.Shape(layout.named_shape(traced.shape(name)))
        value.name = name if name not in {i.name for i in inputs} else f"{name}/output"
        if value.name in {o.name for o in outputs}:
            value.name = emission.unique(f"{name}_again")
        outputs.append(value)
    if not emission.batch_is_kept:
        _unname_batches(emission)
    return emission, inputs, outputs


def _unname_batches(emission: Emission) -> None:
    """Leave the first axis of every computed tensor open.

    Where frames became images, "batch" would name two sizes, and ONNX Runtime gives tensors of one named size one
    buffer.
    """
    for value in (output for node in emission.tape.nodes for output in node.outputs):
        if value.shape is not None:
            value.shape = ir.Shape([None if size == layout.BATCH else size for size in value.shape])


@contextmanager
def _marking(emission: Emission, keras_node: str) -> Iterator[None]:
    """Record on every node that is emitted in the block that it stands for this Keras node."""
    before = len(emission.tape.nodes)
    yield
    for node in emission.tape.nodes[before:]:
        mark(node, [keras_node])
