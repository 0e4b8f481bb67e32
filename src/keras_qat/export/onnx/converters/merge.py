"""Operations on several tensors: Add, Multiply, Concatenate."""

from functools import reduce

import keras
import onnx_ir as ir

from keras_qat.export.onnx.emission import Emission, Step, onnx_axis
from keras_qat.export.onnx.registry import register_converter


@register_converter(keras.layers.Add)
def convert_add(emission: Emission, step: Step) -> ir.Value:
    """A chain of Add, two at a time from the left."""
    return _chain(emission, step, "Add")


@register_converter(keras.layers.Multiply)
def convert_multiply(emission: Emission, step: Step) -> ir.Value:
    """A chain of Mul, two at a time from the left."""
    return _chain(emission, step, "Mul")


def _chain(emission: Emission, step: Step, op_type: str) -> ir.Value:
    return reduce(lambda a, b: emission.op(op_type, [a, b], step.name, step.output_shape), step.inputs)


@register_converter(keras.layers.Concatenate)
def convert_concatenate(emission: Emission, step: Step) -> ir.Value:
    """Concat along the layer's axis."""
    axis = onnx_axis(step.layer.axis, len(step.output_shape))
    return emission.op("Concat", step.inputs, step.name, step.output_shape, axis=axis)
