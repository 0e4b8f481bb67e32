"""Reductions over axes, such as `keras.ops.mean(x, axis=(1, 2))`, and what is computed from them: norms and moments."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir
from keras.src.ops import linalg, math, nn
from keras.src.ops import numpy as operations

from keras_qat.onnx.converters.pooling import global_pool
from keras_qat.onnx.emission import Emission, Step, register_converter
from keras_qat.onnx.layout import IMAGE_RANK, spatial_axes

_REDUCTIONS: Mapping[type, str] = {
    operations.Amax: "ReduceMax",
    operations.Amin: "ReduceMin",
    operations.Max: "ReduceMax",
    operations.Mean: "ReduceMean",
    operations.Min: "ReduceMin",
    operations.Prod: "ReduceProd",
    operations.Sum: "ReduceSum",
    math.Logsumexp: "ReduceLogSumExp",
}

_GLOBAL_POOLS = {"ReduceMean": "GlobalAveragePool", "ReduceMax": "GlobalMaxPool"}


def _axes(axis: Any, rank: int) -> tuple[int, ...]:
    """The axes of a reduction, counted from 0; all of them for `None`."""
    given = range(rank) if axis is None else (axis,) if isinstance(axis, int) else axis
    return tuple(sorted(a % rank for a in given))


@register_converter(*_REDUCTIONS)
def convert_reduction(emission: Emission, step: Step) -> ir.Value:
    """A global pooling for height and width of an image; else a Reduce operator in Keras's layout."""
    op_type, shape = _REDUCTIONS[type(step.layer)], step.input_shapes[0]
    if getattr(step.layer, "initial", None) is not None:
        step.refuse(f"initial={step.layer.initial}", "Leave it out, and use `keras.ops.maximum` or `minimum` behind.")
    rank, keepdims = len(shape), bool(step.layer.keepdims)
    axes = _axes(step.layer.axis, rank)
    in_file = tuple(sorted(emission.layout.axis(axis, rank) for axis in axes))
    if rank == IMAGE_RANK and in_file == spatial_axes(rank) and op_type in _GLOBAL_POOLS:
        return global_pool(emission, step, _GLOBAL_POOLS[op_type], keepdims=keepdims)
    if keepdims:
        return emission.reduce(op_type, step.inputs[0], in_file, step.name, step.output_shape, keepdims=True)
    x = emission.to_keras_layout(step.inputs[0], shape, step.name)
    value = emission.reduce(op_type, x, axes, step.name, None, keepdims=False)
    return emission.to_file_layout(value, step.output_shape, step.name)


@register_converter(operations.Any, operations.All, operations.CountNonzero, integers=True)
def convert_truth(emission: Emission, step: Step) -> ir.Value:
    """A sum of truth values: at least one, or no false one; or how many."""
    kind, shape = type(step.layer), step.input_shapes[0]
    truth = emission.cast(step.inputs[0], ir.DataType.BOOL, step.name)
    if kind is operations.All:
        truth = emission.op("Not", [truth], f"{step.name}/false", dtype=ir.DataType.BOOL)
    numbers = emission.cast(truth, ir.DataType.INT32, f"{step.name}/numbers")
    x = emission.to_keras_layout(numbers, shape, step.name)
    keepdims = bool(getattr(step.layer, "keepdims", False))
    count = emission.reduce("ReduceSum", x, _axes(step.layer.axis, len(shape)), step.name, None, keepdims=keepdims)
    if kind is operations.CountNonzero:
        return emission.to_file_layout(emission.cast(count, step.dtype, step.name), step.output_shape, step.name)
    none = emission.constant(f"{step.name}/none", 0, np.int32)
    op_type = "Greater" if kind is operations.Any else "Equal"
    found = emission.op(op_type, [count, none], f"{step.name}/found", dtype=ir.DataType.BOOL)
    return emission.to_file_layout(found, step.output_shape, step.name)


@register_converter(operations.Var, operations.Std, nn.Moments)
def convert_moments(emission: Emission, step: Step) -> ir.Value | tuple[ir.Value, ...]:
    """The mean of the squares of x - mean(x), its root, or mean and variance."""
    kind, layer, shape = type(step.layer), step.layer, step.input_shapes[0]
    x = emission.to_keras_layout(step.inputs[0], shape, step.name)
    axes, keepdims = _axes(layer.axes if kind is nn.Moments else layer.axis, len(shape)), bool(layer.keepdims)
    mean = emission.reduce("ReduceMean", x, axes, f"{step.name}/mean", None, keepdims=True)
    off = emission.op("Sub", [x, mean], f"{step.name}/off")
    square = emission.op("Mul", [off, off], f"{step.name}/square")
    spread = emission.reduce("ReduceMean", square, axes, step.name, None, keepdims=keepdims)
    if kind is operations.Var:
        return emission.to_file_layout(spread, step.output_shape, step.name)
    if kind is operations.Std:
        return emission.to_file_layout(emission.op("Sqrt", [spread], f"{step.name}/root"), step.output_shape, step.name)
    given = mean if keepdims else emission.reduce("ReduceMean", x, axes, f"{step.name}/mean", None, keepdims=False)
    return tuple(
        emission.to_file_layout(value, made, step.name)
        for value, made in zip((given, spread), step.output_shapes, strict=True)
    )


_NORMS: Mapping[Any, str] = {None: "ReduceL2", "fro": "ReduceL2", 1: "ReduceL1", 2: "ReduceL2"}


@register_converter(linalg.Norm)
def convert_norm(emission: Emission, step: Step) -> ir.Value:
    """ReduceL1 or ReduceL2."""
    layer, shape = step.layer, step.input_shapes[0]
    axes = _axes(layer.axis, len(shape))
    if layer.ord not in _NORMS or (layer.ord in {1, 2} and len(axes) > 1):
        step.refuse(f"ord={layer.ord}, axis={layer.axis}", "Use the norm of order 1 or 2 along one axis.")
    x = emission.to_keras_layout(step.inputs[0], shape, step.name)
    value = emission.reduce(_NORMS[layer.ord], x, axes, step.name, None, keepdims=bool(layer.keepdims))
    return emission.to_file_layout(value, step.output_shape, step.name)


@register_converter(operations.Cumsum)
def convert_cumsum(emission: Emission, step: Step) -> ir.Value:
    """CumSum along one axis."""
    axis, rank = step.layer.axis, len(step.input_shapes[0])
    if axis is None:
        step.refuse("axis=None", "Name the axis.")
    x = emission.cast(step.inputs[0], step.dtype, step.name, step.output_shape)
    constant = emission.constant(f"{step.name}/axis", emission.layout.axis(axis, rank), np.int64)
    return emission.op("CumSum", [x, constant], step.name, step.output_shape)
