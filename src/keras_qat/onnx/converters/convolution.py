"""Weighted layers with float or int8 kernels, and FakeQuantize: what has scales.

A quantized kernel is stored as int8 behind a DequantizeLinear, and FakeQuantize becomes a QuantizeLinear and a
DequantizeLinear. Integers and scales are computed exactly as in the simulation, in float32:

    s = max|w| · (1 / q_max) per output channel,   q = clip(round(w / s), q_min, q_max)
"""

from typing import Any

import keras
import numpy as np
import onnx_ir as ir
from keras.src.ops import nn

from keras_qat import layers
from keras_qat.graph import TensorRef
from keras_qat.onnx.converters import activation, pooling
from keras_qat.onnx.emission import Emission, Step, float_array, register_converter
from keras_qat.onnx.layout import MATRIX_RANK


@register_converter(
    *(keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D),
    *(layers.QuantizedConv1D, layers.QuantizedConv2D, layers.QuantizedConv3D),
)
def convert_conv(emission: Emission, step: Step) -> ir.Value:
    """Conv; the kernel (h, w, in, out) becomes (out, in, h, w)."""
    return _convolution(emission, step, _in_front(float_array(step.layer.kernel)), groups=step.layer.groups)


@register_converter(
    *(keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D),
    *(layers.QuantizedDepthwiseConv1D, layers.QuantizedDepthwiseConv2D),
)
def convert_depthwise_conv(emission: Emission, step: Step) -> ir.Value:
    """Conv with a group for each channel; the kernel (h, w, in, multiplier) becomes (in · multiplier, 1, h, w)."""
    kernel = _by_channel(float_array(step.layer.kernel))
    return _convolution(emission, step, kernel, groups=step.layer.kernel.shape[-2])


def _in_front(kernel: np.ndarray) -> np.ndarray:
    """The kernel (…, in, out) as (out, in, …); (…, out, in) of a transposed convolution as (in, out, …)."""
    rank = kernel.ndim
    return np.transpose(kernel, (rank - 1, rank - 2, *range(rank - 2)))


def _by_channel(kernel: np.ndarray) -> np.ndarray:
    """The depthwise kernel (…, in, multiplier) as (in · multiplier, 1, …)."""
    rank, size = kernel.ndim, kernel.shape[:-2]
    return np.transpose(kernel, (rank - 2, rank - 1, *range(rank - 2))).reshape(-1, 1, *size)


def _convolution(emission: Emission, step: Step, kernel: np.ndarray, groups: int) -> ir.Value:
    layer = step.layer
    weights = emit_kernel(emission, step, kernel, channel_axis=0)
    attributes = {"group": groups, **_window(emission, step, kernel.shape[2:])}
    value = emission.op(
        "Conv", [step.inputs[0], weights, *_bias(emission, step)], step.name, step.output_shape, **attributes
    )
    return activation.emit_activation(emission, layer.activation, value, step)


def _window(emission: Emission, step: Step, size: tuple[int, ...]) -> dict[str, Any]:
    layer, spatial = step.layer, emission.layout.spatial(step.input_shapes[0])
    strides, dilations = (_each(n, len(spatial)) for n in (layer.strides, layer.dilation_rate))
    return pooling.window_attributes(step, size, strides, layer.padding, spatial, dilations)


def _each(number: Any, axes: int) -> tuple[int, ...]:
    """One number for each axis."""
    return (number,) * axes if isinstance(number, int) else tuple(number)


def _bias(emission: Emission, step: Step) -> list[ir.Value]:
    """The bias of the layer; empty if it has none."""
    return [emission.constant(f"{step.name}/bias", float_array(step.layer.bias))] if step.layer.use_bias else []


@register_converter(
    *(keras.layers.Conv1DTranspose, keras.layers.Conv2DTranspose, keras.layers.Conv3DTranspose),
    *(layers.QuantizedConv1DTranspose, layers.QuantizedConv2DTranspose, layers.QuantizedConv3DTranspose),
)
def convert_conv_transpose(emission: Emission, step: Step) -> ir.Value:
    """ConvTranspose; the kernel (h, w, out, in) becomes (in, out, h, w)."""
    kernel = _in_front(float_array(step.layer.kernel))
    weights = emit_kernel(emission, step, kernel, channel_axis=1)
    attributes = _transposed_window(step, kernel.shape[2:])
    inputs = [step.inputs[0], weights, *_bias(emission, step)]
    value = emission.op("ConvTranspose", inputs, step.name, step.output_shape, **attributes)
    return activation.emit_activation(emission, step.layer.activation, value, step)


def _transposed_window(step: Step, size: tuple[int, ...]) -> dict[str, Any]:
    """The attributes of a ConvTranspose.

    From n pixels it makes (n - 1) · stride + k, k being the size of the dilated kernel. Keras makes more or fewer. What
    it cuts off are the pads, the odd pixel at the end; what it adds at the end is the output padding.
    """
    axes, layer = len(size), step.layer
    strides, dilations = (_each(n, axes) for n in (layer.strides, layer.dilation_rate))
    added: tuple[Any, ...] = (None,) * axes if layer.output_padding is None else _each(layer.output_padding, axes)
    cut = [
        _cut((k - 1) * dilation + 1, stride, layer.padding, more)
        for k, stride, dilation, more in zip(size, strides, dilations, added, strict=True)
    ]
    attributes: dict[str, Any] = {"kernel_shape": list(size), "strides": list(strides)}
    if set(dilations) != {1}:
        attributes["dilations"] = list(dilations)
    if any(n > 0 for n in cut):
        kept = [max(n, 0) for n in cut]
        attributes["pads"] = [n // 2 for n in kept] + [n - n // 2 for n in kept]
    if any(n < 0 for n in cut):
        attributes["output_padding"] = [max(-n, 0) for n in cut]
    return attributes


def _cut(k: int, stride: int, padding: str, added: int | None) -> int:
    """How many pixels of (n - 1) · stride + k Keras cuts off an axis; negative where it adds some."""
    if padding == "valid":
        return min(k - stride, 0) if added is None else -added
    return k - stride if added is None else k - k % 2 - added


@register_converter(nn.Conv, nn.DepthwiseConv)
def convert_conv_operation(emission: Emission, step: Step) -> ir.Value:
    """Conv with a constant kernel, or with one that the model computes.

    `keras.ops.conv_transpose` has no converter: in Keras 3.15 a model that calls it on a symbolic tensor doesn't run.
    """
    kind, kernel = type(step.layer), step.arguments["kernel"]
    shape = [n or 0 for n in (step.operand(kernel)[1] if isinstance(kernel, TensorRef) else kernel.shape)]
    weights = _kernel_operand(emission, step, kernel, shape, depthwise=kind is nn.DepthwiseConv)
    inputs, channels = [step.inputs[0], weights], step.input_shapes[0][-1 if emission.layout.channels_last else 1]
    groups = channels if kind is nn.DepthwiseConv else (channels or 0) // shape[-2]
    return emission.op(
        "Conv", inputs, step.name, step.output_shape, group=groups, **_window(emission, step, tuple(shape[:-2]))
    )


def _kernel_operand(emission: Emission, step: Step, kernel: Any, shape: Any, *, depthwise: bool) -> ir.Value:
    """The kernel in ONNX's layout."""
    if not isinstance(kernel, TensorRef):
        array = float_array(kernel)
        array = _by_channel(array) if depthwise else _in_front(array)
        return emission.constant(f"{step.name}/kernel", np.ascontiguousarray(array))
    rank = len(shape)
    value = emission.to_keras_layout(*step.operand(kernel), f"{step.name}/kernel")
    last = (rank - 2, rank - 1) if depthwise else (rank - 1, rank - 2)
    value = emission.op("Transpose", [value], f"{step.name}/kernel/transpose", perm=[*last, *range(rank - 2)])
    if depthwise:
        target = emission.constant(f"{step.name}/kernel/shape", [-1, 1, *shape[:-2]], np.int64)
        value = emission.op("Reshape", [value, target], f"{step.name}/kernel/reshape")
    return value


@register_converter(keras.layers.Dense, layers.QuantizedDense)
def convert_dense(emission: Emission, step: Step) -> ir.Value:
    """Gemm for a matrix of inputs, a 1x1 Conv for images, MatMul and Add for other ranks."""
    rank, kernel = len(step.input_shapes[0]), float_array(step.layer.kernel)
    pixels = (1,) * (rank - 2) if emission.layout.moves(rank) else None
    if pixels is not None:
        weights = emit_kernel(emission, step, kernel.T.reshape(*kernel.T.shape, *pixels), channel_axis=0)
    else:
        weights = emit_kernel(emission, step, kernel, channel_axis=1)
    inputs, bias = [step.inputs[0], weights], _bias(emission, step)
    if pixels is not None:
        value = emission.op("Conv", [*inputs, *bias], step.name, step.output_shape, kernel_shape=list(pixels))
    elif rank == MATRIX_RANK:
        value = emission.op("Gemm", [*inputs, *bias], step.name, step.output_shape)
    else:
        value = emission.op("MatMul", inputs, step.name, step.output_shape)
        for constant in bias:
            value = emission.op("Add", [value, constant], f"{step.name}/add_bias", step.output_shape)
    return activation.emit_activation(emission, step.layer.activation, value, step)


@register_converter(layers.FakeQuantize)
def convert_fake_quantize(emission: Emission, step: Step) -> ir.Value:
    """A Q/DQ pair.

    Scale and zero-point are scalars (rank 0); with rank 1, ONNX Runtime doesn't fuse `QLinearAdd`.
    """
    spec, shape = step.layer.spec, step.output_shape
    parameters = [
        emission.constant(f"{step.name}/scale", _scale(float_array(step.layer.amax), spec.q_max)),
        emission.constant(f"{step.name}/zero_point", spec.zero_point, spec.storage),
    ]
    dtype = ir.DataType[spec.storage.upper()]
    integers = emission.op("QuantizeLinear", [*step.inputs, *parameters], f"{step.name}/QuantizeLinear", shape, dtype)
    return emission.op("DequantizeLinear", [integers, *parameters], f"{step.name}/DequantizeLinear", shape)


def emit_kernel(emission: Emission, step: Step, kernel: np.ndarray, channel_axis: int) -> ir.Value:
    """Add the constants of a kernel.

    Args:
        emission: the emission to add them to.
        step: the weighted layer.
        kernel: its weights, float32, already in the ONNX layout.
        channel_axis: the axis of the output channels in `kernel`.

    Returns:
        The float kernel, or the output of the DequantizeLinear that reads the int8 kernel.
    """
    if not isinstance(step.layer, layers.WeightQuantized):
        return emission.constant(f"{step.name}/kernel", np.ascontiguousarray(kernel))
    q, s = quantize_kernel(kernel, channel_axis, step.layer.weight_spec.q_min, step.layer.weight_spec.q_max)
    parameters = [
        emission.constant(f"{step.name}/kernel", q),
        emission.constant(f"{step.name}/kernel_scale", s),
        # Engines read a missing zero-point as 0, but ONNX Runtime makes an integer Gemm only if it is written out.
        emission.constant(f"{step.name}/kernel_zero_point", np.zeros(s.shape, np.int8)),
    ]
    return emission.op("DequantizeLinear", parameters, f"{step.name}/kernel/DequantizeLinear", axis=channel_axis)


def quantize_kernel(kernel: np.ndarray, axis: int, q_min: int, q_max: int) -> tuple[np.ndarray, np.ndarray]:
    """Integers and per-channel scales of a kernel.

    Args:
        kernel: the weights, float32.
        axis: the axis of the output channels.
        q_min: the smallest integer.
        q_max: the largest integer.

    Returns:
        The int8 kernel of the same shape, and the float32 scale of each channel, shape (channels,).

    Example:
        >>> q, s = quantize_kernel(np.array([[1.0, -2.0], [0.5, 0.25]], "float32"), 0, -127, 127)
        >>> q.tolist(), (s * 127).tolist()
        ([[64, -127], [127, 64]], [2.0, 0.5])
    """
    others = tuple(a for a in range(kernel.ndim) if a != axis)
    s = _scale(np.max(np.abs(kernel), axis=others, keepdims=True), q_max)
    q = np.clip(np.round(kernel / s), q_min, q_max).astype(np.int8)
    return np.ascontiguousarray(q), s.reshape(-1)


def _scale(amax: np.ndarray, q_max: int) -> np.ndarray:
    """The scale s = amax · (1 / q_max) in float32, never zero."""
    return np.asarray(np.maximum(amax, np.float32(layers.SMALLEST_AMAX)) * np.float32(1 / q_max), np.float32)
