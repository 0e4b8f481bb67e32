"""Operations of `keras.ops` on one tensor, number by number: `keras.ops.relu(x)`, `keras.ops.sqrt(x)`."""

import onnx_ir as ir
from keras.src.ops import nn, numpy

from keras_qat.errors import UnsupportedModelError
from keras_qat.export.onnx.converters.activation import emit_named
from keras_qat.export.onnx.emission import Emission, Step
from keras_qat.export.onnx.registry import register_converter

_ACTIVATIONS: dict[type, str] = {
    nn.Relu: "relu",
    nn.Relu6: "relu6",
    nn.Sigmoid: "sigmoid",
    nn.HardSigmoid: "hard_sigmoid",
    nn.Silu: "silu",
    nn.HardSilu: "hard_silu",
    nn.Softplus: "softplus",
    nn.Softsign: "softsign",
    nn.Selu: "selu",
    numpy.Tanh: "tanh",
}

_OPERATORS: dict[type, str] = {
    numpy.Absolute: "Abs",
    numpy.Abs: "Abs",
    numpy.Negative: "Neg",
    numpy.Exp: "Exp",
    numpy.Log: "Log",
    numpy.Sqrt: "Sqrt",
    numpy.Reciprocal: "Reciprocal",
}


@register_converter(*_ACTIVATIONS)
def convert_activation(emission: Emission, step: Step) -> ir.Value:
    """The activation, as in a layer of its own."""
    return emit_named(emission, _ACTIVATIONS[type(step.layer)], step.inputs[0], step, step.name)


@register_converter(*_OPERATORS)
def convert_function(emission: Emission, step: Step) -> ir.Value:
    """One ONNX operator."""
    return emission.op(_OPERATORS[type(step.layer)], step.inputs, step.name, step.output_shape)


@register_converter(numpy.Square)
def convert_square(emission: Emission, step: Step) -> ir.Value:
    """Mul of a tensor with itself."""
    return emission.op("Mul", [step.inputs[0], step.inputs[0]], step.name, step.output_shape)


@register_converter(nn.Gelu)
def convert_gelu(emission: Emission, step: Step) -> ir.Value:
    """The exact GELU."""
    if step.layer.approximate:
        raise UnsupportedModelError(
            f"The operation {step.name!r} can't be exported. Received: gelu(approximate=True). "
            "Use `keras.ops.gelu(x, approximate=False)`."
        )
    return emit_named(emission, "gelu", step.inputs[0], step, step.name)


@register_converter(nn.Softmax)
def convert_softmax(emission: Emission, step: Step) -> ir.Value:
    """Softmax along one axis."""
    axis = step.layer.axis
    if not isinstance(axis, int):
        raise UnsupportedModelError(
            f"The operation {step.name!r} can't be exported. Received: softmax(axis={axis}). Use one axis."
        )
    in_file = emission.layout.axis(axis, len(step.output_shape))
    return emission.op("Softmax", step.inputs, step.name, step.output_shape, axis=in_file)
