"""Operations of `keras.ops` on two operands, tensors or constants: `x + y`, `x * 0.5`, `keras.ops.maximum(x, y)`."""

import inspect
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import onnx_ir as ir
from keras.src.ops import numpy as operations

from keras_qat.errors import UnsupportedModelError
from keras_qat.export.onnx.emission import Emission, Step
from keras_qat.export.onnx.registry import register_converter
from keras_qat.graph import TensorRef

_OPERATORS: dict[type, str] = {
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


@register_converter(*_OPERATORS)
def convert_binary(emission: Emission, step: Step) -> ir.Value:
    """The operator; a constant stands second where it may, for the passes that fold it."""
    op_type = _OPERATORS[type(step.layer)]
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
