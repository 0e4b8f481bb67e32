"""Conv2D, DepthwiseConv2D and Dense."""

import keras
import numpy as np
import onnx_ir as ir

from keras_qat.export.onnx.converters.activation import emit_activation
from keras_qat.export.onnx.converters.kernel import emit_kernel
from keras_qat.export.onnx.converters.window import window_attributes
from keras_qat.export.onnx.emission import Emission, Step, float_array, require_channels_last
from keras_qat.export.onnx.registry import register_converter


@register_converter(keras.layers.Conv2D)
def convert_conv(emission: Emission, step: Step) -> ir.Value:
    """Conv; the kernel (h, w, in, out) becomes (out, in, h, w)."""
    layer = step.layer
    kernel = np.transpose(float_array(layer.kernel), (3, 2, 0, 1))
    return _convolution(emission, step, kernel, groups=layer.groups)


@register_converter(keras.layers.DepthwiseConv2D)
def convert_depthwise_conv(emission: Emission, step: Step) -> ir.Value:
    """Conv with one group a channel; the kernel (h, w, in, multiplier) becomes (in · multiplier, 1, h, w)."""
    kernel = float_array(step.layer.kernel)
    height, width, channels, multiplier = kernel.shape
    kernel = np.transpose(kernel, (2, 3, 0, 1)).reshape(channels * multiplier, 1, height, width)
    return _convolution(emission, step, kernel, groups=channels)


def _convolution(emission: Emission, step: Step, kernel: np.ndarray, groups: int) -> ir.Value:
    require_channels_last(step)
    layer = step.layer
    window = window_attributes(
        layer.kernel_size, layer.strides, layer.padding, step.input_shapes[0], layer.dilation_rate
    )
    inputs = [step.inputs[0], emit_kernel(emission, step, kernel, channel_axis=0)]
    if layer.use_bias:
        inputs.append(emission.constant(f"{step.name}/bias", float_array(layer.bias)))
    value = emission.op("Conv", inputs, step.name, step.output_shape, group=groups, **window)
    return emit_activation(emission, layer.activation, value, step)


@register_converter(keras.layers.Dense)
def convert_dense(emission: Emission, step: Step) -> ir.Value:
    """Gemm for a matrix of inputs, MatMul and Add for more axes; the kernel keeps Keras's layout (in, out)."""
    layer = step.layer
    kernel = emit_kernel(emission, step, float_array(layer.kernel), channel_axis=1)
    bias = emission.constant(f"{step.name}/bias", float_array(layer.bias)) if layer.use_bias else None
    rank = len(step.input_shapes[0])
    if rank == 2:  # noqa: PLR2004
        inputs = [step.inputs[0], kernel] + ([] if bias is None else [bias])
        value = emission.op("Gemm", inputs, step.name, step.output_shape)
    else:
        x = emission.to_keras_layout(step.inputs[0], step.input_shapes[0], step.name)
        value = emission.op("MatMul", [x, kernel], step.name)
        if bias is not None:
            value = emission.op("Add", [value, bias], f"{step.name}/add_bias")
        value = emission.to_file_layout(value, step.output_shape, step.name)
    return emit_activation(emission, layer.activation, value, step)
