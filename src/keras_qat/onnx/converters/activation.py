"""Functions of one tensor: activations as layers, inside other layers and as operations, and `keras.ops.sqrt` and such.

One table holds the activations by name, whichever way the model calls them.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import onnx_ir as ir
from keras.src.activations.activations import ReLU
from keras.src.ops import nn, numpy

from keras_qat.errors import UnsupportedModelError
from keras_qat.graph import activation_name
from keras_qat.onnx.emission import Emission, Step, register_converter

Emit = Callable[[Emission, ir.Value, Step, str], ir.Value]
"""(emission, input, step, node name) → output."""


def _plain(op_type: str, **attributes: Any) -> Emit:
    """An activation that is one ONNX operator."""

    def emit(emission: Emission, x: ir.Value, step: Step, name: str) -> ir.Value:
        return emission.op(op_type, [x], name, step.output_shape, **attributes)

    return emit


def _clip(high: float) -> Emit:
    """An activation that clips its input to [0, high]."""

    def emit(emission: Emission, x: ir.Value, step: Step, name: str) -> ir.Value:
        bounds = (emission.constant(f"{name}/{key}", n, np.float32) for key, n in (("min", 0), ("max", high)))
        return emission.op("Clip", [x, *bounds], name, step.output_shape)

    return emit


def _softmax(emission: Emission, x: ir.Value, step: Step, name: str, axis: int = -1) -> ir.Value:
    in_file = emission.layout.axis(axis, len(step.output_shape))
    return emission.op("Softmax", [x], name, step.output_shape, axis=in_file)


def _gated(op_type: str, **attributes: Any) -> Emit:
    """The product of x and an operator of x.

    HardSwish is spelled out too: ONNX has had it from opset 14 only, and engines fuse this form.
    """

    def emit(emission: Emission, x: ir.Value, step: Step, name: str) -> ir.Value:
        gate = emission.op(op_type, [x], f"{name}/gate", step.output_shape, **attributes)
        return emission.op("Mul", [x, gate], name, step.output_shape)

    return emit


def _gelu(emission: Emission, x: ir.Value, step: Step, name: str) -> ir.Value:
    """Exact GELU, x · ½ (1 + erf(x / √2)), spelled out: ONNX has had Gelu from opset 20 only, and engines fuse this."""
    shape = step.output_shape
    half, one = (emission.constant(f"{name}/{n}", n, np.float32) for n in (0.5, 1.0))
    root = emission.constant(f"{name}/sqrt_2", np.sqrt(2), np.float32)
    erf = emission.op("Erf", [emission.op("Div", [x, root], f"{name}/div", shape)], f"{name}/erf", shape)
    gate = emission.op("Add", [erf, one], f"{name}/add", shape)
    return emission.op("Mul", [emission.op("Mul", [x, gate], f"{name}/mul", shape), half], name, shape)


_HARD_SIGMOID = {"alpha": 1 / 6, "beta": 0.5}

_ACTIVATIONS: dict[str, Emit] = {
    "relu": _plain("Relu"),
    "relu6": _clip(6.0),
    "sigmoid": _plain("Sigmoid"),
    "tanh": _plain("Tanh"),
    "elu": _plain("Elu"),
    "selu": _plain("Selu"),
    "softplus": _plain("Softplus"),
    "softsign": _plain("Softsign"),
    "exponential": _plain("Exp"),
    "leaky_relu": _plain("LeakyRelu", alpha=0.2),
    "hard_sigmoid": _plain("HardSigmoid", **_HARD_SIGMOID),
    "hard_silu": _gated("HardSigmoid", **_HARD_SIGMOID),
    "silu": _gated("Sigmoid"),
    "gelu": _gelu,
    "softmax": _softmax,
}


def emit_activation(emission: Emission, function: Any, x: ir.Value, step: Step, name: str | None = None) -> ir.Value:
    """Add an activation that reads `x`.

    Args:
        emission: the emission to add it to.
        function: the Keras activation; `None` or linear adds nothing.
        x: its input.
        step: the layer that it belongs to.
        name: the name of the node; `<layer>/<activation>` if not given.

    Returns:
        The output of the activation.

    Raises:
        UnsupportedModelError: If the activation isn't in the table.
    """
    known = activation_name(function)
    if known is None:
        return x
    if known not in _ACTIVATIONS:
        raise UnsupportedModelError(
            f"The activation of layer {step.layer.name!r} can't be exported. Received: {known!r}. "
            f"Known are: {', '.join(sorted(_ACTIVATIONS))}. Put another behind the layer as a layer of its own and "
            "register a converter for it."
        )
    return _ACTIVATIONS[known](emission, x, step, name or f"{step.name}/{known}")


@register_converter(keras.layers.Activation)
def convert_activation(emission: Emission, step: Step) -> ir.Value:
    """The activation of the layer."""
    return emit_activation(emission, step.layer.activation, step.inputs[0], step, step.name)


@register_converter(keras.layers.Softmax, nn.Softmax)
def convert_softmax(emission: Emission, step: Step) -> ir.Value:
    """Softmax along one axis."""
    axis = step.layer.axis
    if not isinstance(axis, int):
        raise UnsupportedModelError(
            f"The softmax {step.name!r} can't be exported. Received: softmax(axis={axis}). Use one axis."
        )
    return _softmax(emission, step.inputs[0], step, step.name, axis)


@register_converter(keras.layers.LeakyReLU, nn.LeakyRelu)
def convert_leaky_relu(emission: Emission, step: Step) -> ir.Value:
    """LeakyRelu with the layer's slope."""
    return emission.op("LeakyRelu", step.inputs, step.name, step.output_shape, alpha=float(step.layer.negative_slope))


@register_converter(keras.layers.ReLU, ReLU)
def convert_relu(emission: Emission, step: Step) -> ir.Value:
    """Relu; Clip if the layer has a maximum, LeakyRelu if it has a slope."""
    layer = step.layer
    if layer.threshold != 0 or (layer.negative_slope != 0 and layer.max_value is not None):
        raise UnsupportedModelError(
            f"The layer {layer.name!r} can't be exported. Received: ReLU(max_value={layer.max_value}, "
            f"negative_slope={layer.negative_slope}, threshold={layer.threshold}). "
            "Use threshold=0, and a maximum or a slope but not both."
        )
    if layer.negative_slope != 0:
        return convert_leaky_relu(emission, step)
    if layer.max_value is None:
        return emission.op("Relu", step.inputs, step.name, step.output_shape)
    return _clip(layer.max_value)(emission, step.inputs[0], step, step.name)


_ACTIVATION_FUNCTIONS: dict[type, str] = {
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


@register_converter(*_ACTIVATION_FUNCTIONS)
def convert_activation_function(emission: Emission, step: Step) -> ir.Value:
    """The activation that the operation computes."""
    return _ACTIVATIONS[_ACTIVATION_FUNCTIONS[type(step.layer)]](emission, step.inputs[0], step, step.name)


@register_converter(*_OPERATORS)
def convert_function(emission: Emission, step: Step) -> ir.Value:
    """One ONNX operator."""
    return emission.op(_OPERATORS[type(step.layer)], step.inputs, step.name, step.output_shape)


@register_converter(numpy.Square)
def convert_square(emission: Emission, step: Step) -> ir.Value:
    """Mul of the tensor with itself."""
    return emission.op("Mul", [step.inputs[0], step.inputs[0]], step.name, step.output_shape)


@register_converter(nn.Gelu)
def convert_gelu(emission: Emission, step: Step) -> ir.Value:
    """The exact GELU."""
    if step.layer.approximate:
        raise UnsupportedModelError(
            f"The operation {step.name!r} can't be exported. Received: gelu(approximate=True). "
            "Use `keras.ops.gelu(x, approximate=False)`."
        )
    return _gelu(emission, step.inputs[0], step, step.name)
