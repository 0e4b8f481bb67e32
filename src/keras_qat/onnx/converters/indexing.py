"""Numbers by their places, and places by their numbers: embeddings, take, one-hot, argmax, top-k and sorting."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import onnx_ir as ir
from keras.src.ops import math, nn
from keras.src.ops import numpy as operations

from keras_qat.graph import TensorRef
from keras_qat.onnx.converters.movement import in_keras_layout
from keras_qat.onnx.emission import Emission, Step, float_array, register_converter


def _indices(emission: Emission, step: Step, x: Any) -> ir.Value:
    """Indices of the call as int64, in Keras's layout."""
    if isinstance(x, TensorRef):
        value, shape = step.operand(x)
        return emission.to_keras_layout(emission.cast(value, ir.DataType.INT64, step.name), shape, step.name)
    return emission.constant(f"{step.name}/indices", np.asarray(keras.ops.convert_to_numpy(x)), np.int64)


def _numbers(emission: Emission, step: Step, x: Any) -> ir.Value:
    """Numbers of the call in the type of the output, in Keras's layout."""
    if isinstance(x, TensorRef):
        value, shape = step.operand(x)
        return emission.to_keras_layout(emission.cast(value, step.dtype, step.name), shape, step.name)
    return emission.constant(f"{step.name}/numbers", np.asarray(keras.ops.convert_to_numpy(x)), step.dtype.numpy())


def _finish(emission: Emission, step: Step, value: ir.Value) -> ir.Value:
    return emission.to_file_layout(value, step.output_shape, step.name)


@register_converter(keras.layers.Embedding, integers=True)
def convert_embedding(emission: Emission, step: Step) -> ir.Value:
    """Gather of the rows of the table."""
    table = emission.constant(f"{step.name}/embeddings", float_array(step.layer.embeddings))
    indices = emission.cast(in_keras_layout(emission, step), ir.DataType.INT64, step.name)
    return _finish(emission, step, emission.op("Gather", [table, indices], step.name, axis=0))


_TAKES: Mapping[type, str] = {operations.Take: "Gather", operations.TakeAlongAxis: "GatherElements"}


@register_converter(*_TAKES, integers=True)
def convert_take(emission: Emission, step: Step) -> ir.Value:
    """Gather or GatherElements along one axis."""
    given, axis = step.arguments, step.layer.axis
    if axis is None:
        step.refuse("axis=None", "Name the axis.")
    inputs = [_numbers(emission, step, given["x"]), _indices(emission, step, given["indices"])]
    return _finish(emission, step, emission.op(_TAKES[type(step.layer)], inputs, step.name, axis=axis))


@register_converter(nn.OneHot, integers=True)
def convert_one_hot(emission: Emission, step: Step) -> ir.Value:
    """Equal of the index and each class, which gives zeros for an index out of range as in Keras, then Cast."""
    layer, rank = step.layer, len(step.output_shape)
    axis = layer.axis % rank
    axes = emission.constant(f"{step.name}/axes", [axis], np.int64)
    column = emission.op(
        "Unsqueeze", [_indices(emission, step, step.args[0]), axes], f"{step.name}/column", dtype=ir.DataType.INT64
    )
    classes = np.arange(layer.num_classes).reshape([-1 if a == axis else 1 for a in range(rank)])
    found = emission.op(
        "Equal",
        [column, emission.constant(f"{step.name}/classes", classes, np.int64)],
        step.name,
        dtype=ir.DataType.BOOL,
    )
    return _finish(emission, step, emission.cast(found, step.dtype, step.name))


@register_converter(operations.Argmax, operations.Argmin, integers=True)
def convert_argmax(emission: Emission, step: Step) -> ir.Value:
    """ArgMax or ArgMin, the first of equal numbers."""
    layer, x = step.layer, in_keras_layout(emission, step)
    axis, keepdims = layer.axis, layer.keepdims
    if axis is None:
        step.refuse("axis=None", "Name the axis.")
    x = emission.cast(x, ir.DataType.FLOAT, step.name) if x.dtype is ir.DataType.BOOL else x
    op_type = "ArgMax" if type(layer) is operations.Argmax else "ArgMin"
    value = emission.op(op_type, [x], step.name, dtype=ir.DataType.INT64, axis=axis, keepdims=int(keepdims))
    return _finish(emission, step, emission.cast(value, step.dtype, step.name))


@register_converter(math.TopK)
def convert_top_k(emission: Emission, step: Step) -> tuple[ir.Value, ...]:
    """TopK along the last axis: values and places."""
    values, places = _top(emission, step, step.layer.k, axis=-1, largest=True)
    places = emission.cast(places, ir.DataType.INT32, f"{step.name}/places")
    shapes = step.output_shapes
    return (
        emission.to_file_layout(values, shapes[0], step.name),
        emission.to_file_layout(places, shapes[1], f"{step.name}/places"),
    )


@register_converter(operations.Sort, operations.Argsort, integers=True)
def convert_sort(emission: Emission, step: Step) -> ir.Value:
    """TopK of all numbers along the axis, the smallest first."""
    axis = step.layer.axis
    size = None if axis is None else step.input_shapes[0][axis]
    if size is None:
        step.refuse(f"axis={axis}, of unknown size", "Sort along an axis of fixed size.")
    values, places = _top(emission, step, size, axis=axis, largest=False)
    chosen = values if type(step.layer) is operations.Sort else emission.cast(places, step.dtype, step.name)
    return _finish(emission, step, chosen)


def _top(emission: Emission, step: Step, k: int | None, *, axis: int, largest: bool) -> tuple[ir.Value, ...]:
    x = in_keras_layout(emission, step)
    is_truth = x.dtype is ir.DataType.BOOL
    x = emission.cast(x, ir.DataType.INT32, step.name) if is_truth else x
    inputs = [x, emission.constant(f"{step.name}/k", [k or 0], np.int64)]
    types = (x.dtype or ir.DataType.FLOAT, ir.DataType.INT64)
    values, places = emission.ops("TopK", inputs, step.name, types, axis=axis, largest=int(largest), sorted=1)
    return (emission.cast(values, ir.DataType.BOOL, step.name) if is_truth else values), places


@register_converter(operations.Tril, operations.Triu)
def convert_triangle(emission: Emission, step: Step) -> ir.Value:
    """Where, by a triangle of truth values over the last two Keras axes."""
    sizes = [size for size in step.output_shape[-2:] if size is not None]
    if len(sizes) < len(step.output_shape[-2:]):
        step.refuse("axes of unknown size", "Give the model a fixed input shape.")
    cut = np.tril if type(step.layer) is operations.Tril else np.triu
    triangle = emission.constant(f"{step.name}/triangle", cut(np.ones(sizes), step.layer.k), np.bool_)
    zero = emission.constant(f"{step.name}/zero", 0, step.dtype.numpy())
    return _finish(emission, step, emission.op("Where", [triangle, in_keras_layout(emission, step), zero], step.name))


@register_converter(operations.ZerosLike, operations.OnesLike, operations.FullLike, integers=True)
def convert_full_like(emission: Emission, step: Step) -> ir.Value:
    """A constant, expanded to the shape of the tensor."""
    fill = {operations.ZerosLike: 0, operations.OnesLike: 1}.get(type(step.layer), step.arguments.get("fill_value", 0))
    if isinstance(fill, TensorRef):
        step.refuse("a value that the model computes", "Fill with a number.")
    number = emission.constant(f"{step.name}/value", np.asarray(keras.ops.convert_to_numpy(fill)), step.dtype.numpy())
    shape = emission.op("Shape", [step.inputs[0]], f"{step.name}/shape", dtype=ir.DataType.INT64)
    return emission.op("Expand", [number, shape], step.name, step.output_shape)
