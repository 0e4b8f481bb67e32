"""Activations: as layers, inside other layers, and as operations of `keras.ops`.

One table holds their formulas, by the names of Keras's functions: `activation_name` knows these by the object, so that
a function of the user's own that is called `relu` is none of them.
"""

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import onnx_ir as ir
from keras.src.activations import activations  # the operations behind `keras.activations.relu` and `mish`
from keras.src.ops import nn, numpy

from keras_qat.errors import UnsupportedModelError
from keras_qat.graph import activation_name, lookup
from keras_qat.onnx.emission import Emission, Formula, Step, float_array, register_converter
from keras_qat.onnx.layout import Shape

Emit = Callable[..., ir.Value]
"""(formula, input, and by keyword the parameters of the Keras operation) → output."""

_HALF_ROOT = float(np.sqrt(2 / np.pi))


def _shape(f: Formula) -> Shape:
    """The Keras shape of an activation."""
    return () if f.shape is None else f.shape


def _plain(op_type: str, **attributes: Any) -> Emit:
    """An activation that is one ONNX operator."""

    def emit(f: Formula, x: ir.Value) -> ir.Value:
        return f.last(op_type, x, **attributes)

    return emit


def _clip(low: float, high: float) -> Emit:
    """An activation that clips its input."""

    def emit(f: Formula, x: ir.Value) -> ir.Value:
        return f.last("Clip", x, low, high)

    return emit


def _gated(op_type: str, **attributes: Any) -> Emit:
    """The product of x and an operator of x.

    HardSwish is spelled out too: ONNX has had it from opset 14 only, and engines fuse this form.
    """

    def emit(f: Formula, x: ir.Value) -> ir.Value:
        return f.last("Mul", x, f(op_type, x, **attributes))

    return emit


def _relu(
    f: Formula, x: ir.Value, negative_slope: float = 0, max_value: float | None = None, threshold: float = 0
) -> Any:
    """Relu, Clip or LeakyRelu where one of them computes it, else the cases spelled out as in Keras."""
    if threshold == 0 and negative_slope == 0:
        return f.last("Relu", x) if max_value is None else f.last("Clip", x, 0.0, max_value)
    if threshold == 0 and max_value is None:
        return f.last("LeakyRelu", x, alpha=float(negative_slope))
    kept = f("Where", f("Greater", x, threshold, dtype=ir.DataType.BOOL), x, 0.0)
    if max_value is not None:
        kept = f("Min", kept, max_value)
    below = f("Sub", threshold, f("Min", x, threshold)) if threshold else f("Neg", f("Min", x, 0.0))
    return f.last("Sub", kept, f("Mul", below, negative_slope))


def _leaky_relu(f: Formula, x: ir.Value, negative_slope: float = 0.2) -> ir.Value:
    return f.last("LeakyRelu", x, alpha=float(negative_slope))


def _elu(f: Formula, x: ir.Value, alpha: float = 1.0) -> ir.Value:
    return f.last("Elu", x, alpha=float(alpha))


def _celu(f: Formula, x: ir.Value, alpha: float = 1.0) -> ir.Value:
    """α · Elu(x / α): ONNX's Celu has no FP16 form."""
    return f.last("Elu", x, alpha=1.0) if alpha == 1 else f.last("Mul", f("Elu", f("Div", x, alpha)), alpha)


def _softmax_of_axes(f: Formula, x: ir.Value, axes: list[int], *, log: bool) -> ir.Value:
    """The formula of a softmax over several axes, which ONNX has no operator for."""

    def reduced(op_type: str, value: ir.Value) -> ir.Value:
        return f.emission.reduce(op_type, value, axes, f"{f.name}/{op_type}", None, keepdims=True)

    below = f("Sub", x, reduced("ReduceMax", x))
    powers = f("Exp", below)
    total = reduced("ReduceSum", powers)
    if log:
        return f.last("Sub", below, f.emission.op("Log", [total], f"{f.name}/log"))
    return f.last("Div", powers, total)


def _softmax(op_type: str) -> Emit:
    def emit(f: Formula, x: ir.Value, axis: Any = -1) -> ir.Value:
        rank = len(_shape(f))
        axes = sorted(a % rank for a in ((axis,) if isinstance(axis, int) else range(rank) if axis is None else axis))
        if len(axes) != 1:
            return _softmax_of_axes(f, x, [f.emission.layout.axis(a, rank) for a in axes], log=op_type == "LogSoftmax")
        return f.last(op_type, x, axis=f.emission.layout.axis(axes[0], rank))

    return emit


def _gelu(f: Formula, x: ir.Value, approximate: bool = False) -> ir.Value:
    """GELU, spelled out: ONNX has had Gelu from opset 20 only, and engines fuse the exact one in this form.

    It is x · ½ (1 + erf(x / √2)), or approximately x · ½ (1 + tanh(√(2/π) (x + 0.044715 x³))).
    """
    if approximate:
        cubic = f("Mul", f("Mul", f("Mul", x, x), x), 0.044715)
        gate = f("Tanh", f("Mul", f("Add", x, cubic), _HALF_ROOT))
    else:
        gate = f("Erf", f("Div", x, float(np.sqrt(2))))
    return f.last("Mul", f("Mul", x, f("Add", gate, 1.0)), 0.5)


def _mish(f: Formula, x: ir.Value) -> ir.Value:
    return f.last("Mul", x, f("Tanh", f("Softplus", x)))


def _glu(f: Formula, x: ir.Value, axis: int = -1) -> ir.Value:
    """The first half of the channels, times the sigmoid of the second half."""
    emission, rank, shape = f.emission, len(_shape(f)), _shape(f)
    at, half = emission.layout.axis(axis, rank), shape[axis]
    if half is None or (x.shape is not None and x.shape[at] == half):
        raise UnsupportedModelError(
            f"The activation {f.name!r} can't be exported. Received: a layer with the activation glu, of whose output "
            f"Keras says that it has {half} channels like the input. Call `keras.ops.glu` behind the layer instead."
        )
    cuts = [emission.constant(f"{f.name}/cut", [n], np.int64) for n in (0, half, np.iinfo(np.int64).max, at)]
    first, second = (f("Slice", x, cuts[i], cuts[i + 1], cuts[3]) for i in (0, 1))
    return f.last("Mul", first, f("Sigmoid", second))


def _log_sigmoid(f: Formula, x: ir.Value) -> ir.Value:
    return f.last("Neg", f("Softplus", f("Neg", x)))


def _tanh_shrink(f: Formula, x: ir.Value) -> ir.Value:
    return f.last("Sub", x, f("Tanh", x))


def _soft_shrink(f: Formula, x: ir.Value, threshold: float = 0.5) -> ir.Value:
    return f.last("Sub", x, f("Clip", x, -threshold, threshold))


def _hard_shrink(f: Formula, x: ir.Value, threshold: float = 0.5) -> ir.Value:
    return f.last("Where", f("Greater", f("Abs", x), threshold, dtype=ir.DataType.BOOL), x, 0.0)


def _threshold(f: Formula, x: ir.Value, threshold: float, default_value: float) -> ir.Value:
    return f.last("Where", f("Greater", x, threshold, dtype=ir.DataType.BOOL), x, default_value)


def _sparse_plus(f: Formula, x: ir.Value) -> ir.Value:
    """0 up to -1, then ¼ (x + 1)², then x from 1: the square of the clipped part, and what is beyond 1."""
    bend = f("Add", f("Clip", x, -1.0, 1.0), 1.0)
    return f.last("Add", f("Mul", f("Mul", bend, bend), 0.25), f("Sub", f("Max", x, 1.0), 1.0))


def _squareplus(f: Formula, x: ir.Value, b: float = 4) -> ir.Value:
    return f.last("Mul", f("Add", x, f("Sqrt", f("Add", f("Mul", x, x), b))), 0.5)


def _sparsemax(f: Formula, x: ir.Value, axis: int = -1) -> ir.Value:
    """max(x - τ, 0), with Keras's τ = (Σ s_k - 1) / n.

    The sums s_k of the k largest numbers are added over the n places k where the k-th number is above (s_k - 1) / k.
    """
    emission, shape = f.emission, _shape(f)
    size, at = shape[axis], emission.layout.axis(axis, len(shape))
    if size is None:
        raise UnsupportedModelError(
            f"The activation {f.name!r} can't be exported. Received: sparsemax over an axis of unknown size. "
            "Give the model a fixed input shape."
        )
    k = emission.constant(f"{f.name}/k", [size], np.int64)
    types = (ir.DataType.FLOAT, ir.DataType.INT64)
    largest, _ = emission.ops("TopK", [x, k], f"{f.name}/sort", types, axis=at)
    counts = np.arange(1, size + 1, dtype=np.float32).reshape([-1 if a == at else 1 for a in range(len(shape))])
    sums = f("CumSum", largest, emission.constant(f"{f.name}/axis", at, np.int64))
    above = f("Greater", largest, f("Div", f("Sub", sums, 1.0), counts), dtype=ir.DataType.BOOL)
    totals = [
        emission.reduce("ReduceSum", value, (at,), f"{f.name}/total", None, keepdims=True)
        for value in (
            f("Where", above, sums, 0.0),
            f("Cast", above, to=int(ir.DataType.FLOAT), dtype=ir.DataType.FLOAT),
        )
    ]
    part = Formula(emission, f"{f.name}/tau", None)
    return f.last("Relu", f("Sub", x, part.last("Div", part("Sub", totals[0], 1.0), totals[1])))


_HARD_SIGMOID = {"alpha": 1 / 6, "beta": 0.5}

_FUNCTIONS: dict[str, Emit] = {
    "celu": _celu,
    "elu": _elu,
    "exponential": _plain("Exp"),
    "gelu": _gelu,
    "glu": _glu,
    "hard_shrink": _hard_shrink,
    "hard_sigmoid": _plain("HardSigmoid", **_HARD_SIGMOID),
    "hard_silu": _gated("HardSigmoid", **_HARD_SIGMOID),
    "hard_tanh": _clip(-1.0, 1.0),
    "leaky_relu": _leaky_relu,
    "log_sigmoid": _log_sigmoid,
    "log_softmax": _softmax("LogSoftmax"),
    "mish": _mish,
    "relu": _relu,
    "relu6": _clip(0.0, 6.0),
    "selu": _plain("Selu"),
    "sigmoid": _plain("Sigmoid"),
    "silu": _gated("Sigmoid"),
    "soft_shrink": _soft_shrink,
    "softmax": _softmax("Softmax"),
    "softplus": _plain("Softplus"),
    "softsign": _plain("Softsign"),
    "sparse_plus": _sparse_plus,
    "sparse_sigmoid": _plain("HardSigmoid", alpha=0.5, beta=0.5),
    "sparsemax": _sparsemax,
    "squareplus": _squareplus,
    "tanh": _plain("Tanh"),
    "tanh_shrink": _tanh_shrink,
    "threshold": _threshold,
}
"""The formula of each activation, by its name in `keras.activations`."""


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
    if known not in _FUNCTIONS:
        raise UnsupportedModelError(
            f"The activation of layer {step.layer.name!r} can't be exported. Received: {known!r}. "
            f"Known are those of `keras.activations`: {', '.join(sorted(_FUNCTIONS))}. Put another behind the layer as "
            "a layer of its own, written with `keras.ops`."
        )
    return _FUNCTIONS[known](emission.formula(step, name or f"{step.name}/{known}"), x)


@register_converter(keras.layers.Activation)
def convert_activation(emission: Emission, step: Step) -> ir.Value:
    """The activation of the layer."""
    return emit_activation(emission, step.layer.activation, step.inputs[0], step, step.name)


_OPERATIONS: Mapping[type, tuple[Emit, tuple[str, ...]]] = {
    activations.ReLU: (_relu, ("negative_slope", "max_value", "threshold")),
    activations.Mish: (_mish, ()),
    keras.layers.ELU: (_elu, ("alpha",)),
    keras.layers.LeakyReLU: (_leaky_relu, ("negative_slope",)),
    keras.layers.ReLU: (_relu, ("negative_slope", "max_value", "threshold")),
    keras.layers.Softmax: (_softmax("Softmax"), ("axis",)),
    nn.Celu: (_celu, ("alpha",)),
    nn.Elu: (_elu, ("alpha",)),
    nn.Gelu: (_gelu, ("approximate",)),
    nn.Glu: (_glu, ("axis",)),
    nn.HardShrink: (_hard_shrink, ("threshold",)),
    nn.HardSigmoid: (_FUNCTIONS["hard_sigmoid"], ()),
    nn.HardSilu: (_FUNCTIONS["hard_silu"], ()),
    nn.HardTanh: (_FUNCTIONS["hard_tanh"], ()),
    nn.LeakyRelu: (_leaky_relu, ("negative_slope",)),
    nn.LogSigmoid: (_log_sigmoid, ()),
    nn.LogSoftmax: (_FUNCTIONS["log_softmax"], ("axis",)),
    nn.Relu: (_relu, ()),
    nn.Relu6: (_FUNCTIONS["relu6"], ()),
    nn.Selu: (_FUNCTIONS["selu"], ()),
    nn.Sigmoid: (_FUNCTIONS["sigmoid"], ()),
    nn.Silu: (_FUNCTIONS["silu"], ()),
    nn.SoftShrink: (_soft_shrink, ("threshold",)),
    nn.Softmax: (_softmax("Softmax"), ("axis",)),
    nn.Softplus: (_FUNCTIONS["softplus"], ()),
    nn.Softsign: (_FUNCTIONS["softsign"], ()),
    nn.SparsePlus: (_sparse_plus, ()),
    nn.SparseSigmoid: (_FUNCTIONS["sparse_sigmoid"], ()),
    nn.Sparsemax: (_sparsemax, ("axis",)),
    nn.Squareplus: (_squareplus, ("b",)),
    nn.TanhShrink: (_tanh_shrink, ()),
    nn.Threshold: (_threshold, ("threshold", "default_value")),
    numpy.Tanh: (_FUNCTIONS["tanh"], ()),
}
"""The formula of each layer and operation, and which of its attributes are the parameters."""


@register_converter(*_OPERATIONS)
def convert_activation_operation(emission: Emission, step: Step) -> ir.Value:
    """The formula of the layer or operation, with its parameters."""
    emit, parameters = lookup(step.layer, _OPERATIONS)
    return emit(emission.formula(step), step.inputs[0], **{name: getattr(step.layer, name) for name in parameters})


@register_converter(keras.layers.PReLU)
def convert_prelu(emission: Emission, step: Step) -> ir.Value:
    """PRelu; the slopes, shaped like the input without the batch, broadcast along the shared axes."""
    slope = emission.layout.constant(float_array(step.layer.alpha)[np.newaxis], len(step.output_shape))
    slope = slope.reshape((1,) * len(step.output_shape)) if slope.ndim == 0 else slope
    return emission.op(
        "PRelu", [step.inputs[0], emission.constant(f"{step.name}/slope", slope)], step.name, step.output_shape
    )
