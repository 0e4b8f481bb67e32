"""Several operands into one: operators such as `x + y` and `x * 0.5`, merging layers such as Add, and Concatenate."""

from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any

import keras
import numpy as np
import onnx_ir as ir
from keras.src.ops import numpy as operations

from keras_qat.graph import TensorRef, lookup
from keras_qat.onnx.emission import Emission, Formula, Step, register_converter
from keras_qat.onnx.layout import MATRIX_RANK, Shape

_COMMUTATIVE = frozenset({"Add", "Mul", "Max", "Min"})

_BINARY_OPERATORS: Mapping[type, str] = {
    operations.Add: "Add",
    operations.Divide: "Div",
    operations.Fmax: "Max",
    operations.Fmin: "Min",
    operations.Maximum: "Max",
    operations.Minimum: "Min",
    operations.Multiply: "Mul",
    operations.Power: "Pow",
    operations.Subtract: "Sub",
    operations.TrueDivide: "Div",
}
"""Operators whose operands have the type of the result."""

_COMPARISONS: Mapping[type, str] = {
    operations.Equal: "Equal",
    operations.Greater: "Greater",
    operations.GreaterEqual: "GreaterOrEqual",
    operations.Less: "Less",
    operations.LessEqual: "LessOrEqual",
}

_LOGICAL: Mapping[type, str] = {
    operations.BitwiseAnd: "And",
    operations.BitwiseOr: "Or",
    operations.BitwiseXor: "Xor",
    operations.LogicalAnd: "And",
    operations.LogicalOr: "Or",
    operations.LogicalXor: "Xor",
}
"""Operators on truth values."""

_MERGE_OPERATORS: Mapping[type, str] = {
    keras.layers.Add: "Add",
    keras.layers.Multiply: "Mul",
    keras.layers.Subtract: "Sub",
    keras.layers.Maximum: "Max",
    keras.layers.Minimum: "Min",
}


def operands(emission: Emission, step: Step, dtype: ir.DataType) -> list[ir.Value]:
    """The operands of an operation that broadcasts as NumPy does, in the file's layout and in the rank of the output.

    Args:
        emission: where Casts and constants are added.
        step: the operation, whose arguments are tensors, numbers, arrays or weights.
        dtype: the type that the operands get.
    """
    rank = len(step.output_shape)
    return [_operand(emission, step, x, rank, dtype) for x in step.arguments.values()]


def _operand(emission: Emission, step: Step, x: Any, rank: int, dtype: ir.DataType) -> ir.Value:
    if not isinstance(x, TensorRef):
        array = np.asarray(keras.ops.convert_to_numpy(x)).astype(dtype.numpy())
        return emission.constant(f"{step.name}/constant", emission.layout.constant(array, rank))
    value, shape = step.operand(x)
    value = emission.cast(value, dtype, step.name, shape)
    return value if len(shape) == rank else _with_leading_ones(emission, step, value, shape, rank)


def _with_leading_ones(emission: Emission, step: Step, value: ir.Value, shape: Shape, rank: int) -> ir.Value:
    """The value with axes of size 1 before those that it has, up to a rank."""
    return _with_ones(emission, step, value, shape, (1,) * (rank - len(shape)) + shape, range(rank - len(shape)))


def _with_ones(emission: Emission, step: Step, value: ir.Value, shape: Shape, spread: Shape, axes: range) -> ir.Value:
    """The value with new Keras axes of size 1; `spread` is its shape then."""
    x = emission.to_keras_layout(value, shape, step.name)
    constant = emission.constant(f"{step.name}/axes", list(axes), np.int64)
    x = emission.op("Unsqueeze", [x, constant], f"{step.name}/expand", dtype=value.dtype)
    return emission.to_file_layout(x, spread, step.name)


@register_converter(*_BINARY_OPERATORS)
def convert_binary(emission: Emission, step: Step) -> ir.Value:
    """The operator on two tensors, or on a tensor and a constant.

    A constant is put second where the operator commutes, for the passes that fold it. For the same reason a constant
    minus a tensor becomes a Mul by -1 and an Add.
    """
    op_type = _BINARY_OPERATORS[type(step.layer)]
    values = operands(emission, step, step.dtype)
    if op_type in _COMMUTATIVE:
        values.sort(key=lambda value: value.const_value is not None)
    constants = [value.const_value for value in values]
    if op_type == "Sub" and constants[0] is not None and step.dtype is ir.DataType.FLOAT:
        minus = emission.formula(step, f"{step.name}/minus").last("Mul", values[1], -1.0)
        op_type, values = "Add", [minus, values[0]]
    elif op_type == "Sub" and constants[1] is not None and step.dtype is ir.DataType.FLOAT:
        op_type, values[1] = "Add", emission.constant(f"{step.name}/minus", -constants[1].numpy())
    return emission.op(op_type, values, step.name, step.output_shape)


_FORMULAS: Mapping[type, Callable[[Formula, ir.Value, ir.Value], ir.Value]] = {
    operations.DivideNoNan: lambda f, x, y: f.last(
        "Where",
        f("Equal", y, 0.0, dtype=ir.DataType.BOOL),
        0.0,
        f("Div", x, f("Where", f("Equal", y, 0.0, dtype=ir.DataType.BOOL), 1.0, y)),
    ),
    operations.Hypot: lambda f, x, y: f.last("Sqrt", f("Add", f("Mul", x, x), f("Mul", y, y))),
    operations.Logaddexp: lambda f, x, y: f.last(
        "Add", f("Max", x, y), f("Log", f("Add", f("Exp", f("Neg", f("Abs", f("Sub", x, y)))), 1.0))
    ),
}


@register_converter(*_FORMULAS)
def convert_binary_formula(emission: Emission, step: Step) -> ir.Value:
    """The formula of the operation."""
    return _FORMULAS[type(step.layer)](emission.formula(step), *operands(emission, step, step.dtype))


@register_converter(operations.FloorDivide, operations.Mod)
def convert_floor_divide(emission: Emission, step: Step) -> ir.Value:
    """⌊x / y⌋, or what it leaves, x - y ⌊x / y⌋; of integers in float32, which is exact up to 2^24."""
    f = emission.formula(step)
    x, y = operands(emission, step, ir.DataType.FLOAT)
    floor = f("Floor", f("Div", x, y))
    value = floor if type(step.layer) is operations.FloorDivide else f("Sub", x, f("Mul", y, floor))
    return emission.cast(value, step.dtype, step.name, step.output_shape)


@register_converter(*_COMPARISONS, operations.NotEqual, integers=True)
def convert_comparison(emission: Emission, step: Step) -> ir.Value:
    """The comparison in float32 if one of the operands is a floating-point number, else of 64-bit integers."""
    kinds = {np.dtype(value.dtype.numpy()).kind if value.dtype is not None else "f" for value in step.inputs} | {
        np.asarray(keras.ops.convert_to_numpy(x)).dtype.kind
        for x in step.arguments.values()
        if not isinstance(x, TensorRef)
    }
    values = operands(emission, step, ir.DataType.FLOAT if "f" in kinds else ir.DataType.INT64)
    if type(step.layer) is operations.NotEqual:
        equal = emission.op("Equal", values, f"{step.name}/equal", step.output_shape)
        return emission.op("Not", [equal], step.name, step.output_shape)
    return emission.op(_COMPARISONS[type(step.layer)], values, step.name, step.output_shape)


@register_converter(*_LOGICAL, integers=True)
def convert_logical(emission: Emission, step: Step) -> ir.Value:
    """The operator on truth values."""
    if step.dtype is not ir.DataType.BOOL:
        step.refuse("bits of integers", "Combine truth values with `keras.ops.logical_and` and such.")
    values = operands(emission, step, ir.DataType.BOOL)
    return emission.op(_LOGICAL[type(step.layer)], values, step.name, step.output_shape)


@register_converter(operations.Where, integers=True)
def convert_where(emission: Emission, step: Step) -> ir.Value:
    """Where, with the condition as truth values."""
    rank = len(step.output_shape)
    condition, *branches = step.arguments.values()
    if len(branches) != 2:  # noqa: PLR2004
        step.refuse("only a condition", "Give `keras.ops.where` both branches.")
    values = [_operand(emission, step, x, rank, step.dtype) for x in branches]
    return emission.op(
        "Where", [_operand(emission, step, condition, rank, ir.DataType.BOOL), *values], step.name, step.output_shape
    )


@register_converter(*_MERGE_OPERATORS)
def convert_merge(emission: Emission, step: Step) -> ir.Value:
    """The operator on the first two tensors, then on the result and the third, and so on."""
    return _chain(emission, step, lookup(step.layer, _MERGE_OPERATORS))


@register_converter(keras.layers.Average)
def convert_average(emission: Emission, step: Step) -> ir.Value:
    """A chain of Adds, then a Mul by 1 / n."""
    added = _chain(emission, step, "Add")
    share = emission.constant(f"{step.name}/share", 1 / len(step.inputs), np.float32)
    return emission.op("Mul", [added, share], f"{step.name}/mean", step.output_shape)


def _chain(emission: Emission, step: Step, op_type: str) -> ir.Value:
    _require_tensors(step)
    inputs = [_with_rank(emission, step, i) for i in range(len(step.inputs))]
    return reduce(lambda a, b: emission.op(op_type, [a, b], step.name, step.output_shape), inputs)


def _with_rank(emission: Emission, step: Step, index: int) -> ir.Value:
    """The input in the rank of the output.

    Keras inserts missing axes behind the batch, so that (N, C) becomes (N, 1, 1, C).
    """
    value, shape, rank = step.inputs[index], step.input_shapes[index], len(step.output_shape)
    missing = rank - len(shape)
    if missing == 0:
        return value
    spread = (shape[0], *[1] * missing, *shape[1:])
    if len(shape) != MATRIX_RANK:
        return _with_ones(emission, step, value, shape, spread, range(1, missing + 1))
    sizes = [0, *(-1 if size is None or isinstance(size, str) else size for size in emission.layout.shape(spread)[1:])]
    target = emission.constant(f"{step.name}/shape_{index}", sizes, np.int64)
    return emission.op("Reshape", [value, target], f"{step.name}/expand_{index}", spread)


def _require_tensors(step: Step) -> None:
    """Refuse constants among the inputs of a merging layer.

    Raises:
        UnsupportedModelError: If an input is not a tensor of the graph.
    """
    given = len(keras.tree.flatten((step.args, dict(step.kwargs))))
    if given != len(step.inputs):
        step.refuse(
            f"{given - len(step.inputs)} constants among {given} inputs",
            "Add or multiply constants by an operator, as in `x + c`.",
        )


@register_converter(
    *(keras.layers.Concatenate, operations.Concatenate, operations.Append),
    *(operations.Hstack, operations.Vstack, operations.Dstack),
)
def convert_concatenate(emission: Emission, step: Step) -> ir.Value:
    """Concat of tensors and constants along the axis of the layer."""
    shape, rank = step.output_shape, len(step.output_shape)
    axis = _STACKED_AXIS.get(type(step.layer), getattr(step.layer, "axis", 1))
    if axis is None or {len(s) for s in step.input_shapes} != {rank}:
        step.refuse(f"axis={axis}, shapes {list(step.input_shapes)}", "Reshape the tensors to one rank first.")
    leaves = [leaf for leaf in keras.tree.flatten((step.args, dict(step.kwargs))) if leaf is not None]
    values = []
    for leaf in leaves:
        if isinstance(leaf, TensorRef):
            values.append(emission.cast(step.operand(leaf)[0], step.dtype, step.name))
        else:
            array = np.asarray(keras.ops.convert_to_numpy(leaf)).astype(step.dtype.numpy())
            values.append(emission.constant(f"{step.name}/constant", emission.layout.full(array, rank)))
    return emission.op("Concat", values, step.name, shape, axis=emission.layout.axis(axis, rank))


_STACKED_AXIS: Mapping[type, int] = {operations.Hstack: 1, operations.Vstack: 0, operations.Dstack: 2}
"""The axis of operations that join along a fixed one, of tensors that have it."""
