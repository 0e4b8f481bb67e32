"""Normalization layers, and other layers that are affine per channel.

The fold pass merges a BatchNormalization, and the Mul and Add of y = a · x + b, into the convolution before it.
"""

import keras
import numpy as np
import onnx_ir as ir
from keras.src.applications.convnext import LayerScale

from keras_qat.errors import UnsupportedModelError
from keras_qat.onnx.emission import Emission, Step, float_array, register_converter

_OPSET_OF_LAYER_NORMALIZATION = 17


@register_converter(keras.layers.BatchNormalization)
def convert_batch_norm(emission: Emission, step: Step) -> ir.Value:
    """BatchNormalization with the moving statistics."""
    layer, rank = step.layer, len(step.output_shape)
    if emission.layout.axis(layer.axis, rank) != 1:
        raise UnsupportedModelError(
            f"The layer {layer.name!r} can't be exported. Received: BatchNormalization(axis={layer.axis}) on a tensor "
            f"of shape {step.output_shape}. Normalize the channels: the last axis of a channels_last model, axis 1 of "
            "a channels_first one."
        )
    inputs = [
        step.inputs[0],
        *_gamma_and_beta(emission, step, step.output_shape[layer.axis]),
        emission.constant(f"{step.name}/mean", float_array(layer.moving_mean)),
        emission.constant(f"{step.name}/variance", float_array(layer.moving_variance)),
    ]
    return emission.op("BatchNormalization", inputs, step.name, step.output_shape, epsilon=float(layer.epsilon))


@register_converter(keras.layers.LayerNormalization)
def convert_layer_norm(emission: Emission, step: Step) -> ir.Value:
    """LayerNormalization over the last Keras axis; an image is transposed to Keras's layout for it."""
    layer, rank = step.layer, len(step.output_shape)
    axes = [layer.axis] if isinstance(layer.axis, int) else list(layer.axis)
    if [axis % rank for axis in axes] != [rank - 1] or getattr(layer, "rms_scaling", False):
        raise UnsupportedModelError(
            f"The layer {layer.name!r} can't be exported. Received: LayerNormalization(axis={layer.axis}) on a tensor "
            f"of shape {step.output_shape}. Normalize the last axis, without rms_scaling."
        )
    if emission.opset < _OPSET_OF_LAYER_NORMALIZATION:
        raise UnsupportedModelError(
            f"The layer {layer.name!r} needs ONNX opset {_OPSET_OF_LAYER_NORMALIZATION} or later. "
            f"Received: opset={emission.opset}. Export with a later opset."
        )
    x = emission.to_keras_layout(step.inputs[0], step.output_shape, step.name)
    inputs = [x, *_gamma_and_beta(emission, step, step.output_shape[-1])]
    value = emission.op("LayerNormalization", inputs, step.name, axis=-1, epsilon=float(layer.epsilon))
    return emission.to_file_layout(value, step.output_shape, step.name)


def _gamma_and_beta(emission: Emission, step: Step, channels: int | None) -> tuple[ir.Value, ir.Value]:
    """The learned scale and offset of a normalization layer; ones and zeros where it has none."""
    layer = step.layer
    gamma = float_array(layer.gamma) if layer.scale else np.ones(channels or 0, np.float32)
    beta = float_array(layer.beta) if layer.center else np.zeros(channels or 0, np.float32)
    return emission.constant(f"{step.name}/gamma", gamma), emission.constant(f"{step.name}/beta", beta)


@register_converter(keras.layers.Rescaling)
def convert_rescaling(emission: Emission, step: Step) -> ir.Value:
    """Scale and offset, each a single number or one number per channel."""
    a, b = (_by_channel(np.asarray(array)) for array in (step.layer.scale, step.layer.offset))
    return _affine(emission, step, a, b)


def _by_channel(array: np.ndarray) -> np.ndarray:
    """Shape the numbers as the layer does: under Keras's setting channels_first they belong to the leading axis."""
    if array.ndim and keras.config.image_data_format() == "channels_first":
        return array.reshape(array.shape + (1,) * (3 - array.ndim))
    return array


@register_converter(LayerScale)
def convert_layer_scale(emission: Emission, step: Step) -> ir.Value:
    """ConvNeXt's learned scale of each channel."""
    return _affine(emission, step, float_array(step.layer.gamma), np.zeros(()))


@register_converter(keras.layers.Normalization)
def convert_normalization(emission: Emission, step: Step) -> ir.Value:
    """(x - mean) / σ, or its inverse, with the adapted statistics."""
    layer = step.layer
    mean, variance = (np.asarray(keras.ops.convert_to_numpy(v), np.float64) for v in (layer.mean, layer.variance))
    sigma = np.maximum(np.sqrt(variance), keras.backend.epsilon())
    a, b = (sigma, mean) if layer.invert else (1 / sigma, -mean / sigma)
    return _affine(emission, step, a, b)


def _affine(emission: Emission, step: Step, a: np.ndarray, b: np.ndarray) -> ir.Value:
    """Add y = a · x + b; a or b that changes nothing adds no node.

    Args:
        emission: the emission to add it to.
        step: the layer.
        a: an array that broadcasts against the layer's input in Keras's layout: a scalar, or one number per channel.
        b: likewise.
    """
    value = step.inputs[0]
    for op_type, name, array, neutral in (("Mul", step.name, a, 1), ("Add", f"{step.name}/offset", b, 0)):
        if np.all(array == neutral):
            continue
        in_file = emission.layout.constant(array, len(step.output_shape))
        constant = emission.constant(f"{name}/{op_type.lower()}", in_file)
        value = emission.op(op_type, [value, constant], name, step.output_shape)
    return value
