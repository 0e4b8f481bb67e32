"""Weighted layers with float or int8 kernels, and FakeQuantize: what has scales.

A quantized kernel is stored as int8 behind a DequantizeLinear, and FakeQuantize becomes a QuantizeLinear and a
DequantizeLinear. Integers and scales are computed exactly as in the simulation, in float32:

    s = max|w| / q_max per output channel,   q = clip(round(w / s), q_min, q_max)
"""

from typing import Any

import keras
import numpy as np
import onnx_ir as ir

from keras_qat import layers
from keras_qat.onnx.converters import activation, pooling
from keras_qat.onnx.emission import Emission, Step, float_array, register_converter
from keras_qat.onnx.layout import IMAGE_RANK, MATRIX_RANK

_WITH_BIAS = {MATRIX_RANK: "Gemm", IMAGE_RANK: "Conv"}
"""The operator with a bias that a Dense layer becomes, by the rank of its input."""


@register_converter(keras.layers.Conv2D, layers.QuantizedConv2D)
def convert_conv(emission: Emission, step: Step) -> ir.Value:
    """Conv; the kernel (h, w, in, out) becomes (out, in, h, w)."""
    kernel = np.transpose(float_array(step.layer.kernel), (3, 2, 0, 1))
    return _convolution(emission, step, kernel, groups=step.layer.groups)


@register_converter(keras.layers.DepthwiseConv2D, layers.QuantizedDepthwiseConv2D)
def convert_depthwise_conv(emission: Emission, step: Step) -> ir.Value:
    """Conv with a group for each channel; the kernel (h, w, in, multiplier) becomes (in · multiplier, 1, h, w)."""
    kernel = float_array(step.layer.kernel)
    height, width, channels, multiplier = kernel.shape
    kernel = np.transpose(kernel, (2, 3, 0, 1)).reshape(channels * multiplier, 1, height, width)
    return _convolution(emission, step, kernel, groups=channels)


def _convolution(emission: Emission, step: Step, kernel: np.ndarray, groups: int) -> ir.Value:
    layer, spatial = step.layer, emission.layout.spatial(step.input_shapes[0])
    window = pooling.window_attributes(layer.kernel_size, layer.strides, layer.padding, spatial, layer.dilation_rate)
    inputs = [step.inputs[0], emit_kernel(emission, step, kernel, channel_axis=0), *_bias(emission, step)]
    value = emission.op("Conv", inputs, step.name, step.output_shape, group=groups, **window)
    return activation.emit_activation(emission, layer.activation, value, step)


def _bias(emission: Emission, step: Step) -> list[ir.Value]:
    """The bias of the layer; empty if it has none."""
    return [emission.constant(f"{step.name}/bias", float_array(step.layer.bias))] if step.layer.use_bias else []


@register_converter(keras.layers.Dense, layers.QuantizedDense)
def convert_dense(emission: Emission, step: Step) -> ir.Value:
    """Gemm for a matrix of inputs, a 1x1 Conv for images, MatMul and Add for other ranks."""
    rank, kernel = len(step.input_shapes[0]), float_array(step.layer.kernel)
    if rank == IMAGE_RANK:
        weights = emit_kernel(emission, step, kernel.T[:, :, np.newaxis, np.newaxis], channel_axis=0)
    else:
        weights = emit_kernel(emission, step, kernel, channel_axis=1)
    inputs, bias = [step.inputs[0], weights], _bias(emission, step)
    if rank in _WITH_BIAS:
        attributes: dict[str, Any] = {"kernel_shape": [1, 1]} if rank == IMAGE_RANK else {}
        value = emission.op(_WITH_BIAS[rank], [*inputs, *bias], step.name, step.output_shape, **attributes)
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
    """The scale s = amax / q_max in float32, never zero."""
    return np.asarray(np.maximum(amax, np.float32(layers.SMALLEST_AMAX)) / np.float32(q_max), np.float32)
