"""Layers on several tensors: Add, Multiply, Concatenate and their kin."""

from functools import reduce

import keras
import numpy as np
import onnx_ir as ir
from keras.src.ops import numpy as operations

from keras_qat.errors import UnsupportedModelError
from keras_qat.export.onnx.emission import Emission, Step
from keras_qat.export.onnx.registry import register_converter

_MATRIX_RANK = 2


_OPERATORS: dict[type, str] = {
    keras.layers.Add: "Add",
    keras.layers.Multiply: "Mul",
    keras.layers.Subtract: "Sub",
    keras.layers.Maximum: "Max",
    keras.layers.Minimum: "Min",
}


@register_converter(*_OPERATORS)
def convert_merge(emission: Emission, step: Step) -> ir.Value:
    """A chain of the operator, two at a time from the left."""
    return _chain(emission, step, next(_OPERATORS[base] for base in type(step.layer).__mro__ if base in _OPERATORS))


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
