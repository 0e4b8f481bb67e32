"""Operations of `keras.ops` on two operands, tensors or constants: `x + y`, `x * 0.5`, `keras.ops.maximum(x, y)`.

Layers on several tensors: Add, Multiply, Concatenate and their kin.

Operations of `keras.ops` over whole axes: `keras.ops.mean(x, axis=(1, 2))`, `max`, `sum`.
"""

import inspect
from collections.abc import Iterator
from functools import reduce
from typing import Any

import keras
import numpy as np
import onnx_ir as ir
from keras.src.ops import numpy as operations

from keras_qat.errors import UnsupportedModelError
from keras_qat.graph import TensorRef
from keras_qat.onnx.emission import Emission, Step, register_converter
from keras_qat.onnx.layout import IMAGE_RANK, named_shape

_BINARY_OPERATORS: dict[type, str] = {
    operations.Add: "Add",
    operations.Subtract: "Sub",
    operations.Multiply: "Mul",
    operations.Divide: "Div",
    operations.TrueDivide: "Div",
    operations.Maximum: "Max",
    operations.Minimum: "Min",
    operations.Power: "Pow",
}

_COMMUTES = frozenset({"Add", "Mul", "Max", "Min"})


@register_converter(*_BINARY_OPERATORS)
def convert_binary(emission: Emission, step: Step) -> ir.Value:
    """The operator; a constant stands second where it may, for the passes that fold it."""
    op_type = _BINARY_OPERATORS[type(step.layer)]
    tensors = iter(range(len(step.inputs)))
    operands = [_operand(emission, step, x, tensors) for x in arguments(step).values()]
    if op_type in _COMMUTES:
        operands.sort(key=lambda value: value.const_value is not None)
    return emission.op(op_type, operands, step.name, step.output_shape)


def arguments(step: Step) -> dict[str, Any]:
    """The arguments of the call by the names that the operation gives them."""
    bound = inspect.signature(step.layer.call).bind(*step.args, **(step.kwargs or {}))
    return dict(bound.arguments)


def _operand(emission: Emission, step: Step, x: Any, tensors: Iterator[int]) -> ir.Value:
    rank = len(step.output_shape)
    if not isinstance(x, TensorRef):
        array = np.asarray(keras.ops.convert_to_numpy(x), np.float32)
        return emission.constant(f"{step.name}/constant", emission.layout.constant(array, rank))
    index = next(tensors)
    if len(step.input_shapes[index]) != rank:
        raise UnsupportedModelError(
            f"The operation {step.name!r} can't be exported. Received: tensors of shapes {list(step.input_shapes)}. "
            "Reshape them to one rank first."
        )
    return step.inputs[index]


_MATRIX_RANK = 2


_MERGE_OPERATORS: dict[type, str] = {
    keras.layers.Add: "Add",
    keras.layers.Multiply: "Mul",
    keras.layers.Subtract: "Sub",
    keras.layers.Maximum: "Max",
    keras.layers.Minimum: "Min",
}


@register_converter(*_MERGE_OPERATORS)
def convert_merge(emission: Emission, step: Step) -> ir.Value:
    """A chain of the operator, two at a time from the left."""
    return _chain(
        emission, step, next(_MERGE_OPERATORS[base] for base in type(step.layer).__mro__ if base in _MERGE_OPERATORS)
    )


@register_converter(keras.layers.Average)
def convert_average(emission: Emission, step: Step) -> ir.Value:
    """A chain of Add, then Mul with 1 / n."""
    added = _chain(emission, step, "Add")
    share = emission.constant(f"{step.name}/share", np.array(1 / len(step.inputs), np.float32))
    return emission.op("Mul", [added, share], f"{step.name}/mean", step.output_shape)


def _require_tensors(step: Step) -> None:
    """Refuse constants among the inputs.

    Raises:
        UnsupportedModelError: an input is no tensor of the graph.
    """
    given = len(keras.tree.flatten((step.args, dict(step.kwargs or {}))))
    if given != len(step.inputs):
        raise UnsupportedModelError(
            f"The inputs of {step.name!r} can't all be exported. Received: {given - len(step.inputs)} constants among "
            f"{given} inputs. Add or multiply constants by an operator, as in `x + c`."
        )


def _chain(emission: Emission, step: Step, op_type: str) -> ir.Value:
    _require_tensors(step)
    inputs = [_with_rank(emission, step, i) for i in range(len(step.inputs))]
    return reduce(lambda a, b: emission.op(op_type, [a, b], step.name, step.output_shape), inputs)


def _with_rank(emission: Emission, step: Step, index: int) -> ir.Value:
    """The input with the output's rank: Keras puts the missing axes behind the batch, so (N, C) is (N, 1, 1, C)."""
    value, shape, rank = step.inputs[index], step.input_shapes[index], len(step.output_shape)
    missing = rank - len(shape)
    if missing == 0:
        return value
    if len(shape) != _MATRIX_RANK:
        raise UnsupportedModelError(
            f"The layer {step.layer.name!r} can't be exported. Received: inputs of shapes {list(step.input_shapes)}. "
            "Reshape them to one rank first."
        )
    spread = (shape[0], *[1] * missing, *shape[1:])
    sizes = [0, *(-1 if size is None or isinstance(size, str) else size for size in emission.layout.shape(spread)[1:])]
    target = emission.constant(f"{step.name}/shape_{index}", np.array(sizes, np.int64))
    return emission.op("Reshape", [value, target], f"{step.name}/expand_{index}", spread)


@register_converter(keras.layers.Concatenate, operations.Concatenate)
def convert_concatenate(emission: Emission, step: Step) -> ir.Value:
    """Concat along the layer's axis."""
    _require_tensors(step)
    axis = emission.layout.axis(step.layer.axis, len(step.output_shape))
    return emission.op("Concat", step.inputs, step.name, step.output_shape, axis=axis)


_REDUCTIONS: dict[type, str] = {
    operations.Mean: "ReduceMean",
    operations.Max: "ReduceMax",
    operations.Min: "ReduceMin",
    operations.Sum: "ReduceSum",
}

_GLOBAL_POOLS = {"ReduceMean": "GlobalAveragePool", "ReduceMax": "GlobalMaxPool"}

_HEIGHT_AND_WIDTH = [2, 3]

_AXES_ARE_AN_INPUT = {"ReduceSum": 13}
"""The opset from which the axes are an input; 18 for the others."""


@register_converter(*_REDUCTIONS)
def convert_reduction(emission: Emission, step: Step) -> ir.Value:
    """A global pooling where it is one; a Reduce operator on Keras's axes elsewhere."""
    op_type, shape = _REDUCTIONS[type(step.layer)], step.input_shapes[0]
    if getattr(step.layer, "initial", None) is not None:
        raise UnsupportedModelError(
            f"The operation {step.name!r} can't be exported. Received: initial={step.layer.initial}. "
            "Leave it out, and use `keras.ops.maximum` or `minimum` behind."
        )
    rank = len(shape)
    axes = sorted(axis % rank for axis in (range(rank) if step.layer.axis is None else step.layer.axis))
    in_file = sorted(emission.layout.axis(axis, rank) for axis in axes)
    if rank == IMAGE_RANK and in_file == _HEIGHT_AND_WIDTH and op_type in _GLOBAL_POOLS:
        pooled = emission.op(_GLOBAL_POOLS[op_type], step.inputs, step.name, emission.layout.pooled(shape))
        if step.layer.keepdims:
            return pooled
        return emission.op("Flatten", [pooled], f"{step.name}/flatten", step.output_shape, axis=1)
    x = emission.to_keras_layout(step.inputs[0], shape, step.name)
    keepdims = int(step.layer.keepdims)
    if emission.opset >= _AXES_ARE_AN_INPUT.get(op_type, 18):
        constant = emission.constant(f"{step.name}/axes", np.array(axes, np.int64))
        value = emission.op(op_type, [x, constant], step.name, keepdims=keepdims)
    else:
        value = emission.op(op_type, [x], step.name, keepdims=keepdims, axes=axes)
    value.shape = ir.Shape(named_shape(step.output_shape))
    return emission.to_file_layout(value, step.output_shape, step.name)
