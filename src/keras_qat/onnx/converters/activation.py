"""Activations, as layers and inside other layers: one table by name.

Operations of `keras.ops` on one tensor, number by number: `keras.ops.relu(x)`, `keras.ops.sqrt(x)`.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import onnx_ir as ir
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


def _softmax(emission: Emission, x: ir.Value, step: Step, name: str) -> ir.Value:
    axis = emission.layout.axis(-1, len(step.output_shape))
    return emission.op("Softmax", [x], name, step.output_shape, axis=axis)


def _clip(emission: Emission, x: ir.Value, step: Step, name: str, high: float) -> ir.Value:
    low = emission.constant(f"{name}/min", np.array(0, np.float32))
    return emission.op(
        "Clip",
        [x, low, emission.constant(f"{name}/max", np.array(high, np.float32))],
        name,
        step.output_shape,
    )


def _relu6(emission: Emission, x: ir.Value, step: Step, name: str) -> ir.Value:
    return _clip(emission, x, step, name, 6.0)


def _silu(emission: Emission, x: ir.Value, step: Step, name: str) -> ir.Value:
    gate = emission.op("Sigmoid", [x], f"{name}/gate", step.output_shape)
    return emission.op("Mul", [x, gate], name, step.output_shape)


def _gelu(emission: Emission, x: ir.Value, step: Step, name: str) -> ir.Value:
    """Exact GELU, x · ½ (1 + erf(x / √2)), spelled out: ONNX has Gelu from opset 20, and engines fuse this form."""
    shape = step.output_shape
    half, one = (emission.constant(f"{name}/{n}", np.array(n, np.float32)) for n in (0.5, 1.0))
    root = emission.constant(f"{name}/sqrt_2", np.array(np.sqrt(2), np.float32))
    erf = emission.op("Erf", [emission.op("Div", [x, root], f"{name}/div", shape)], f"{name}/erf", shape)
    gate = emission.op("Add", [erf, one], f"{name}/add", shape)
    return emission.op("Mul", [emission.op("Mul", [x, gate], f"{name}/mul", shape), half], name, shape)


def _hard_silu(emission: Emission, x: ir.Value, step: Step, name: str) -> ir.Value:
    """The product x · HardSigmoid(x), spelled out: ONNX has HardSwish from opset 14, and engines fuse this form."""
    gate = emission.op("HardSigmoid", [x], f"{name}/gate", step.output_shape, alpha=1 / 6, beta=0.5)
    return emission.op("Mul", [x, gate], name, step.output_shape)


_ACTIVATIONS: dict[str, Emit] = {
    "relu": _plain("Relu"),
    "relu6": _relu6,
    "sigmoid": _plain("Sigmoid"),
    "tanh": _plain("Tanh"),
    "elu": _plain("Elu"),
    "selu": _plain("Selu"),
    "softplus": _plain("Softplus"),
    "softsign": _plain("Softsign"),
    "exponential": _plain("Exp"),
    "leaky_relu": _plain("LeakyRelu", alpha=0.2),
    "hard_sigmoid": _plain("HardSigmoid", alpha=1 / 6, beta=0.5),
    "hard_silu": _hard_silu,
    "silu": _silu,
    "gelu": _gelu,
    "softmax": _softmax,
}


def emit_activation(emission: Emission, function: Any, x: ir.Value, step: Step, name: str | None = None) -> ir.Value:
    """Add the activation behind `x`.

    Args:
        emission: where to add it.
        function: the Keras activation; `None` or linear adds nothing.
        x: its input.
        step: the layer that it belongs to.
        name: the node's name; `<layer>/<activation>` if not given.

    Raises:
        UnsupportedModelError: the activation has no ONNX form here.
    """
    known = activation_name(function)
    return x if known is None else emit_named(emission, known, x, step, name)


def emit_named(emission: Emission, known: str, x: ir.Value, step: Step, name: str | None = None) -> ir.Value:
    """Add the activation of that name; see `emit_activation`."""
    if known not in _ACTIVATIONS:
        raise UnsupportedModelError(
            f"The activation of layer {step.layer.name!r} can't be exported. Received: {known!r}. "
            f"Known are: {', '.join(sorted(_ACTIVATIONS))}. Put another behind the layer as a layer of its own and "
            "register a converter for it."
        )
    return _ACTIVATIONS[known](emission, x, step, name or f"{step.name}/{known}")


@register_converter(keras.layers.Activation)
def convert_activation(emission: Emission, step: Step) -> ir.Value:
    """The layer's function, from the table."""
    return emit_activation(emission, step.layer.activation, step.inputs[0], step, step.name)


@register_converter(keras.layers.Softmax)
def convert_softmax(emission: Emission, step: Step) -> ir.Value:
    """Softmax along one axis."""
    axis = step.layer.axis
    if not isinstance(axis, int):
        raise UnsupportedModelError(
            f"The layer {step.layer.name!r} can't be exported. Received: Softmax(axis={axis}). Use one axis."
        )
    return emission.op(
        "Softmax", step.inputs, step.name, step.output_shape, axis=emission.layout.axis(axis, len(step.output_shape))
    )


@register_converter(keras.layers.LeakyReLU, nn.LeakyRelu)
def convert_leaky_relu(emission: Emission, step: Step) -> ir.Value:
    """LeakyRelu with the layer's slope."""
    return emission.op("LeakyRelu", step.inputs, step.name, step.output_shape, alpha=float(step.layer.negative_slope))


@register_converter(keras.layers.ReLU)
def convert_relu(emission: Emission, step: Step) -> ir.Value:
    """Relu, Clip for a maximum, LeakyRelu for a slope."""
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
    return _clip(emission, step.inputs[0], step, step.name, float(layer.max_value))


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
    """The activation, as in a layer of its own."""
    return emit_named(emission, _ACTIVATION_FUNCTIONS[type(step.layer)], step.inputs[0], step, step.name)


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
def convert_softmax_function(emission: Emission, step: Step) -> ir.Value:
    """Softmax along one axis."""
    axis = step.layer.axis
    if not isinstance(axis, int):
        raise UnsupportedModelError(
            f"The operation {step.name!r} can't be exported. Received: softmax(axis={axis}). Use one axis."
        )
    in_file = emission.layout.axis(axis, len(step.output_shape))
    return emission.op("Softmax", step.inputs, step.name, step.output_shape, axis=in_file)
