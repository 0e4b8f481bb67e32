"""Conv2D, DepthwiseConv2D and Dense."""

from typing import Any

import keras
import numpy as np
import onnx_ir as ir

from keras_qat.export.onnx.converters.activation import emit_activation
from keras_qat.export.onnx.converters.kernel import emit_kernel
from keras_qat.export.onnx.converters.window import window_attributes
from keras_qat.export.onnx.emission import Emission, Step, float_array
from keras_qat.export.onnx.registry import register_converter
from keras_qat.layers import QuantizedConv2D, QuantizedDense, QuantizedDepthwiseConv2D

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
