"""Several operands into one: operators such as `x + y` and `x * 0.5`, merging layers such as Add, and Concatenate."""

from collections.abc import Iterator
from functools import reduce
from typing import Any

import keras
import numpy as np
import onnx_ir as ir
from keras.src.ops import numpy as operations

from keras_qat.errors import UnsupportedModelError
from keras_qat.graph import TensorRef, lookup
from keras_qat.onnx.emission import Emission, Step, float_array, register_converter
from keras_qat.onnx.layout import MATRIX_RANK

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

_COMMUTATIVE = frozenset({"Add", "Mul", "Max", "Min"})

_MERGE_OPERATORS: dict[type, str] = {
    keras.layers.Add: "Add",
    keras.layers.Multiply: "Mul",
    keras.layers.Subtract: "Sub",
    keras.layers.Maximum: "Max",
    keras.layers.Minimum: "Min",
}


@register_converter(*_BINARY_OPERATORS)
def convert_binary(emission: Emission, step: Step) -> ir.Value:
    """The operator on two tensors, or on a tensor and a constant.

    A constant is put second where the operator commutes, for the passes that fold it.
    """
    op_type = _BINARY_OPERATORS[type(step.layer)]
    tensors = iter(range(len(step.inputs)))
    operands = [_operand(emission, step, x, tensors) for x in step.arguments.values()]
    if op_type in _COMMUTATIVE:
        operands.sort(key=lambda value: value.const_value is not None)
    return emission.op(op_type, operands, step.name, step.output_shape)


def _operand(emission: Emission, step: Step, x: Any, tensors: Iterator[int]) -> ir.Value:
    rank = len(step.output_shape)
    if not isinstance(x, TensorRef):
        return emission.constant(f"{step.name}/constant", emission.layout.constant(float_array(x), rank))
    index = next(tensors)
    if len(step.input_shapes[index]) != rank:
        raise UnsupportedModelError(
            f"The operation {step.name!r} can't be exported. Received: tensors of shapes {list(step.input_shapes)}. "
            "Reshape them to one rank first."
        )
    return step.inputs[index]


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
    if len(shape) != MATRIX_RANK:
        raise UnsupportedModelError(
            f"The layer {step.layer.name!r} can't be exported. Received: inputs of shapes {list(step.input_shapes)}. "
            "Reshape them to one rank first."
        )
    spread = (shape[0], *[1] * missing, *shape[1:])
    sizes = [0, *(-1 if size is None or isinstance(size, str) else size for size in emission.layout.shape(spread)[1:])]
    target = emission.constant(f"{step.name}/shape_{index}", sizes, np.int64)
    return emission.op("Reshape", [value, target], f"{step.name}/expand_{index}", spread)


@register_converter(keras.layers.Concatenate, operations.Concatenate)
def convert_concatenate(emission: Emission, step: Step) -> ir.Value:
    """Concat along the axis of the layer."""
    _require_tensors(step)
    axis = emission.layout.axis(step.layer.axis, len(step.output_shape))
    return emission.op("Concat", step.inputs, step.name, step.output_shape, axis=axis)


def _require_tensors(step: Step) -> None:
    """Refuse constants among the inputs.

    Raises:
        UnsupportedModelError: If an input is not a tensor of the graph.
    """
    given = len(keras.tree.flatten((step.args, dict(step.kwargs))))
    if given != len(step.inputs):
        raise UnsupportedModelError(
            f"The inputs of {step.name!r} can't all be exported. Received: {given - len(step.inputs)} constants among "
            f"{given} inputs. Add or multiply constants by an operator, as in `x + c`."
        )
