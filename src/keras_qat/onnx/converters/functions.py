"""Functions of one tensor, number by number: roots, exponentials, rounding, casts, clipping."""

from collections.abc import Callable, Mapping

import numpy as np
import onnx_ir as ir
from keras.src.ops import core, math, numpy

from keras_qat.errors import UnsupportedModelError
from keras_qat.graph import IDENTITY_LAYERS
from keras_qat.onnx.emission import Emission, Formula, Step, file_dtype, register_converter

_OPERATORS: Mapping[type, str] = {
    numpy.Abs: "Abs",
    numpy.Absolute: "Abs",
    numpy.Fabs: "Abs",
    numpy.Arccos: "Acos",
    numpy.Arccosh: "Acosh",
    numpy.Arcsin: "Asin",
    numpy.Arcsinh: "Asinh",
    numpy.Arctan: "Atan",
    numpy.Arctanh: "Atanh",
    numpy.Ceil: "Ceil",
    numpy.Cos: "Cos",
    numpy.Cosh: "Cosh",
    numpy.Exp: "Exp",
    numpy.Floor: "Floor",
    numpy.Isinf: "IsInf",
    numpy.Isnan: "IsNaN",
    numpy.Log: "Log",
    numpy.Negative: "Neg",
    numpy.Reciprocal: "Reciprocal",
    numpy.Sign: "Sign",
    numpy.Sin: "Sin",
    numpy.Sinh: "Sinh",
    numpy.Sqrt: "Sqrt",
    numpy.Tan: "Tan",
    math.Erf: "Erf",
}


@register_converter(*_OPERATORS)
def convert_function(emission: Emission, step: Step) -> ir.Value:
    """One ONNX operator. Those of infinity and NaN, whose result is a truth value, read floating-point numbers only."""
    x = step.inputs[0]
    if step.dtype is ir.DataType.BOOL:
        x = emission.cast(x, ir.DataType.FLOAT, step.name, step.output_shape)
    return emission.op(_OPERATORS[type(step.layer)], [x], step.name, step.output_shape)


_FORMULAS: Mapping[type, Callable[[Formula, ir.Value], ir.Value]] = {
    numpy.Deg2rad: lambda f, x: f.last("Mul", x, np.pi / 180),
    numpy.Exp2: lambda f, x: f.last("Exp", f("Mul", x, np.log(2))),
    numpy.Expm1: lambda f, x: f.last("Sub", f("Exp", x), 1.0),
    numpy.Log10: lambda f, x: f.last("Div", f("Log", x), np.log(10)),
    numpy.Log1p: lambda f, x: f.last("Log", f("Add", x, 1.0)),
    numpy.Log2: lambda f, x: f.last("Div", f("Log", x), np.log(2)),
    numpy.Rad2deg: lambda f, x: f.last("Mul", x, 180 / np.pi),
    numpy.Square: lambda f, x: f.last("Mul", x, x),
    numpy.Trunc: lambda f, x: f.last("Mul", f("Sign", x), f("Floor", f("Abs", x))),
    math.Erfc: lambda f, x: f.last("Sub", 1.0, f("Erf", x)),
    math.Rsqrt: lambda f, x: f.last("Reciprocal", f("Sqrt", x)),
}


@register_converter(*_FORMULAS)
def convert_formula(emission: Emission, step: Step) -> ir.Value:
    """The formula of the operation. Whole numbers have no fraction to cut off."""
    if type(step.layer) is numpy.Trunc and step.dtype is not ir.DataType.FLOAT:
        return emission.cast(step.inputs[0], step.dtype, step.name, step.output_shape)
    return _FORMULAS[type(step.layer)](emission.formula(step), step.inputs[0])


@register_converter(numpy.LogicalNot, integers=True)
def convert_not(emission: Emission, step: Step) -> ir.Value:
    """Not of the truth value."""
    truth = emission.cast(step.inputs[0], ir.DataType.BOOL, step.name, step.output_shape)
    return emission.op("Not", [truth], step.name, step.output_shape)


@register_converter(numpy.Isfinite)
def convert_is_finite(emission: Emission, step: Step) -> ir.Value:
    """Neither infinite nor NaN: x - x is 0."""
    f, x = emission.formula(step), step.inputs[0]
    return f.last("Equal", f("Sub", x, x), 0.0, dtype=ir.DataType.BOOL)


@register_converter(numpy.Round)
def convert_round(emission: Emission, step: Step) -> ir.Value:
    """Round, half to even as in Keras, to decimals if the operation has them."""
    f, x, decimals = emission.formula(step), step.inputs[0], step.layer.decimals
    if x.dtype is not ir.DataType.FLOAT:
        return x
    if decimals == 0:
        return f.last("Round", x)
    return f.last("Div", f("Round", f("Mul", x, 10.0**decimals)), 10.0**decimals)


@register_converter(numpy.Clip)
def convert_clip(emission: Emission, step: Step) -> ir.Value:
    """Clip between numbers, Max and Min between arrays; no node for a bound of `None`."""
    f, x = emission.formula(step), step.inputs[0]
    low, high = (None if bound is None else np.asarray(bound) for bound in (step.layer.x_min, step.layer.x_max))
    if low is not None and high is not None and low.ndim == high.ndim == 0:
        return f.last("Clip", x, low, high)
    for op_type, bound in (("Max", low), ("Min", high)):
        if bound is not None:
            x = f.last(op_type, x, emission.layout.constant(bound, len(step.output_shape)))
    return x


@register_converter(core.Cast, integers=True)
def convert_cast(emission: Emission, step: Step) -> ir.Value:
    """Cast; no node between floating-point types, which are all float32 in the file."""
    return emission.cast(step.inputs[0], file_dtype(step.layer.dtype), step.name, step.output_shape)


@register_converter(core.SaturateCast, integers=True)
def convert_saturate_cast(emission: Emission, step: Step) -> ir.Value:
    """Clip to what the integer type holds, then Cast."""
    dtype, x = file_dtype(step.layer.dtype), step.inputs[0]
    if dtype is ir.DataType.FLOAT or x.dtype is dtype:
        return convert_cast(emission, step)
    if x.dtype is not ir.DataType.FLOAT or dtype.itemsize > np.dtype(np.int16).itemsize:
        raise UnsupportedModelError(
            f"The operation {step.name!r} can't be exported. Received: saturate_cast from {x.dtype} to {dtype}. "
            "Clip the tensor and use `keras.ops.cast`."
        )
    limits = np.iinfo(dtype.numpy())
    clipped = emission.formula(step, f"{step.name}/clip").last("Clip", x, float(limits.min), float(limits.max))
    return emission.cast(clipped, dtype, step.name, step.output_shape)


@register_converter(
    *(numpy.Copy, core.StopGradient, core.ConvertToTensor, numpy.Array, numpy.Conj, numpy.Conjugate, numpy.Real),
    integers=True,
)
def convert_copy(emission: Emission, step: Step) -> ir.Value:
    """No node, but a Cast if the operation changes the type."""
    return emission.cast(step.inputs[0], step.dtype, step.name, step.output_shape)


@register_converter(*IDENTITY_LAYERS, integers=True)
def convert_identity(emission: Emission, step: Step) -> ir.Value:
    """No node: at inference dropout, noise and augmentation pass their input on."""
    return emission.cast(step.inputs[0], step.dtype, step.name, step.output_shape)
