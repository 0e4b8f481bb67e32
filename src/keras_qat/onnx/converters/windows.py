"""The sliding-window attributes that convolution and pooling share.

Max, average and global pooling.

The kernel of a weighted layer as ONNX: float, or int8 behind a DequantizeLinear.

The integers and scales are computed exactly as the simulation does, in float32:

    s = max|w| / q_max per output channel,   q = clip(round(w / s), q_min, q_max)

Conv2D, DepthwiseConv2D and Dense.

FakeQuantize becomes a QuantizeLinear and a DequantizeLinear.
"""

from typing import Any

import keras
import numpy as np
import onnx_ir as ir

from keras_qat.layers import (
    SMALLEST_AMAX,
    FakeQuantize,
    QuantizedConv2D,
    QuantizedDense,
    QuantizedDepthwiseConv2D,
    WeightQuantized,
)
from keras_qat.onnx.converters.activation import emit_activation
from keras_qat.onnx.emission import Emission, Step, float_array, register_converter
from keras_qat.onnx.layout import Shape


def window_attributes(
    size: tuple[int, int],
    strides: tuple[int, int],
    padding: str,
    spatial: Shape,
    dilations: tuple[int, int] = (1, 1),
) -> dict[str, Any]:
    """ONNX `kernel_shape`, `strides`, `pads` (or `auto_pad`) and `dilations` of a Keras window.

    Keras's "same" pads so that the output has ceil(n / stride) pixels, the odd pixel at the end; in ONNX that is
    SAME_UPPER. Where the input size n is known the pads are written out, which every engine understands.

    Args:
        size: window height and width.
        strides: vertical and horizontal stride.
        padding: "valid" or "same".
        spatial: height and width of the input, `None` where unknown.
        dilations: vertical and horizontal dilation.

    Example:
        >>> window_attributes((3, 3), (2, 2), "same", (8, 8))["pads"]
        [0, 0, 1, 1]
    """
    attributes: dict[str, Any] = {"kernel_shape": list(size), "strides": list(strides)}
    if tuple(dilations) != (1, 1):
        attributes["dilations"] = list(dilations)
    if padding == "valid":
        return attributes
    if None in spatial:
        return {**attributes, "auto_pad": "SAME_UPPER"}
    totals = [
        max((-(-n // stride) - 1) * stride + (k - 1) * dilation + 1 - n, 0)
        for n, k, stride, dilation in zip(spatial, size, strides, dilations, strict=True)
        if n is not None
    ]
    return {**attributes, "pads": [t // 2 for t in totals] + [t - t // 2 for t in totals]}


_HEIGHT_AND_WIDTH = (2, 3)
"""The axes of the pixels in the file's layout."""


@register_converter(keras.layers.MaxPooling2D)
def convert_max_pool(emission: Emission, step: Step) -> ir.Value:
    """MaxPool."""
    return _pool(emission, step, "MaxPool")


@register_converter(keras.layers.AveragePooling2D)
def convert_average_pool(emission: Emission, step: Step) -> ir.Value:
    """AveragePool; padded pixels don't count, as in Keras."""
    return _pool(emission, step, "AveragePool", count_include_pad=0)


def _pool(emission: Emission, step: Step, op_type: str, **attributes: Any) -> ir.Value:
    layer = step.layer
    window = window_attributes(
        layer.pool_size, layer.strides, layer.padding, emission.layout.spatial(step.input_shapes[0])
    )
    return emission.op(op_type, step.inputs, step.name, step.output_shape, **window, **attributes)


@register_converter(keras.layers.GlobalAveragePooling2D)
def convert_global_average_pool(emission: Emission, step: Step) -> ir.Value:
    """GlobalAveragePool, squeezed unless `keepdims`."""
    return _global_pool(emission, step, "GlobalAveragePool")


@register_converter(keras.layers.GlobalMaxPooling2D)
def convert_global_max_pool(emission: Emission, step: Step) -> ir.Value:
    """GlobalMaxPool, squeezed unless `keepdims`."""
    return _global_pool(emission, step, "GlobalMaxPool")


def _global_pool(emission: Emission, step: Step, op_type: str) -> ir.Value:
    pooled = emission.op(op_type, step.inputs, step.name, emission.layout.pooled(step.input_shapes[0]))
    if step.layer.keepdims:
        return pooled
    # Past a Squeeze, not past a Flatten, ONNX Runtime moves the Q up to the pooling, which then runs in integers.
    axes = emission.constant(f"{step.name}/squeeze_axes", np.array(_HEIGHT_AND_WIDTH, np.int64))
    return emission.op("Squeeze", [pooled, axes], f"{step.name}/squeeze", step.output_shape)


def emit_kernel(emission: Emission, step: Step, kernel: np.ndarray, channel_axis: int) -> ir.Value:
    """Add the kernel's constants.

    Args:
        emission: where to add them.
        step: the weighted layer.
        kernel: its weights, already in the ONNX layout, float32.
        channel_axis: the output-channel axis of `kernel`.

    Returns:
        The float kernel, or the output of the DequantizeLinear over the int8 kernel.
    """
    if not isinstance(step.layer, WeightQuantized):
        return emission.constant(f"{step.name}/kernel", np.ascontiguousarray(kernel))
    q, s = quantize_kernel(kernel, channel_axis, step.layer.weight_spec.q_min, step.layer.weight_spec.q_max)
    integers = emission.constant(f"{step.name}/kernel", q)
    scale = emission.constant(f"{step.name}/kernel_scale", s)
    # Engines read a missing zero-point as 0, but ONNX Runtime makes an integer Gemm only where it is written out.
    zero_point = emission.constant(f"{step.name}/kernel_zero_point", np.zeros(s.shape, np.int8))
    return emission.op(
        "DequantizeLinear",
        [integers, scale, zero_point],
        f"{step.name}/kernel/DequantizeLinear",
        axis=channel_axis,
    )


def quantize_kernel(kernel: np.ndarray, axis: int, q_min: int, q_max: int) -> tuple[np.ndarray, np.ndarray]:
    """Integers and per-channel scales of a float32 kernel.

    Returns:
        The int8 kernel of the same shape, and the float32 scale of each channel, shape (channels,).

    Example:
        >>> q, s = quantize_kernel(np.array([[1.0, -2.0], [0.5, 0.25]], "float32"), 0, -127, 127)
        >>> q.tolist(), (s * 127).tolist()
        ([[64, -127], [127, 64]], [2.0, 0.5])
    """
    others = tuple(a for a in range(kernel.ndim) if a != axis)
    amax = np.max(np.abs(kernel), axis=others, keepdims=True).astype(np.float32)
    s = np.maximum(amax, np.float32(SMALLEST_AMAX)) / np.float32(q_max)
    q = np.clip(np.round(kernel / s), q_min, q_max).astype(np.int8)
    return np.ascontiguousarray(q), s.reshape(-1)


_IMAGE_RANK = 4

_WITH_BIAS = {2: "Gemm", _IMAGE_RANK: "Conv"}
"""The operator that a Dense layer becomes, by the rank of its input."""


@register_converter(keras.layers.Conv2D, QuantizedConv2D)
def convert_conv(emission: Emission, step: Step) -> ir.Value:
    """Conv; the kernel (h, w, in, out) becomes (out, in, h, w)."""
    layer = step.layer
    kernel = np.transpose(float_array(layer.kernel), (3, 2, 0, 1))
    return _convolution(emission, step, kernel, groups=layer.groups)


@register_converter(keras.layers.DepthwiseConv2D, QuantizedDepthwiseConv2D)
def convert_depthwise_conv(emission: Emission, step: Step) -> ir.Value:
    """Conv with one group a channel; the kernel (h, w, in, multiplier) becomes (in · multiplier, 1, h, w)."""
    kernel = float_array(step.layer.kernel)
    height, width, channels, multiplier = kernel.shape
    kernel = np.transpose(kernel, (2, 3, 0, 1)).reshape(channels * multiplier, 1, height, width)
    return _convolution(emission, step, kernel, groups=channels)


def _convolution(emission: Emission, step: Step, kernel: np.ndarray, groups: int) -> ir.Value:
    layer = step.layer
    window = window_attributes(
        layer.kernel_size,
        layer.strides,
        layer.padding,
        emission.layout.spatial(step.input_shapes[0]),
        layer.dilation_rate,
    )
    inputs = [step.inputs[0], emit_kernel(emission, step, kernel, channel_axis=0)]
    if layer.use_bias:
        inputs.append(emission.constant(f"{step.name}/bias", float_array(layer.bias)))
    value = emission.op("Conv", inputs, step.name, step.output_shape, group=groups, **window)
    return emit_activation(emission, layer.activation, value, step)


@register_converter(keras.layers.Dense, QuantizedDense)
def convert_dense(emission: Emission, step: Step) -> ir.Value:
    """Gemm for a matrix of inputs, a 1x1 Conv for images, MatMul and Add for other ranks."""
    layer = step.layer
    rank = len(step.input_shapes[0])
    if rank == _IMAGE_RANK:
        kernel = emit_kernel(emission, step, float_array(layer.kernel).T[:, :, np.newaxis, np.newaxis], channel_axis=0)
    else:
        kernel = emit_kernel(emission, step, float_array(layer.kernel), channel_axis=1)
    bias = [emission.constant(f"{step.name}/bias", float_array(layer.bias))] if layer.use_bias else []
    if rank in _WITH_BIAS:
        attributes: dict[str, Any] = {"kernel_shape": [1, 1]} if rank == _IMAGE_RANK else {}
        inputs = [step.inputs[0], kernel, *bias]
        value = emission.op(_WITH_BIAS[rank], inputs, step.name, step.output_shape, **attributes)
    else:
        value = emission.op("MatMul", [step.inputs[0], kernel], step.name, step.output_shape)
        for constant in bias:
            value = emission.op("Add", [value, constant], f"{step.name}/add_bias", step.output_shape)
    return emit_activation(emission, layer.activation, value, step)


@register_converter(FakeQuantize)
def convert_fake_quantize(emission: Emission, step: Step) -> ir.Value:
    """A Q/DQ pair; scale and zero-point are scalars (rank 0), or ONNX Runtime would not fuse `QLinearAdd`."""
    spec = step.layer.spec
    amax = np.float32(keras.ops.convert_to_numpy(step.layer.amax))
    s = np.array(np.maximum(amax, np.float32(SMALLEST_AMAX)) / np.float32(spec.q_max), np.float32)
    z = np.array(spec.zero_point, spec.storage)
    scale = emission.constant(f"{step.name}/scale", s)
    zero_point = emission.constant(f"{step.name}/zero_point", z)
    integers = emission.op(
        "QuantizeLinear",
        [step.inputs[0], scale, zero_point],
        f"{step.name}/QuantizeLinear",
        step.output_shape,
        ir.DataType[spec.storage.upper()],
    )
    return emission.op(
        "DequantizeLinear", [integers, scale, zero_point], f"{step.name}/DequantizeLinear", step.output_shape
    )
