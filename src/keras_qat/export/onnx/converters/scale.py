"""Per-channel affine layers, y = a · x + b, as Mul and Add; the fold pass merges them into the convolution before."""

import keras
import numpy as np
import onnx_ir as ir
from keras.src.applications.convnext import LayerScale

from keras_qat.export.onnx.emission import Emission, Step, float_array
from keras_qat.export.onnx.registry import register_converter


@register_converter(keras.layers.Rescaling)
def convert_rescaling(emission: Emission, step: Step) -> ir.Value:
    """Scale and offset, one number or one a channel."""
    a, b = (_by_channel(np.asarray(array)) for array in (step.layer.scale, step.layer.offset))
    return emit_affine(emission, step, a, b)


def _by_channel(array: np.ndarray) -> np.ndarray:
    """As the layer does: where Keras's own setting is channels_first, the numbers are those of the leading axis."""
    if array.ndim and keras.config.image_data_format() == "channels_first":
        return array.reshape(array.shape + (1,) * (3 - array.ndim))
    return array


@register_converter(LayerScale)
def convert_layer_scale(emission: Emission, step: Step) -> ir.Value:
    """ConvNeXt's learned scale of each channel."""
    return emit_affine(emission, step, float_array(step.layer.gamma), np.zeros(()))


@register_converter(keras.layers.Normalization)
def convert_normalization(emission: Emission, step: Step) -> ir.Value:
    """(x - mean) / σ, or its inverse, with the adapted statistics."""
    layer = step.layer
    mean, variance = (np.asarray(keras.ops.convert_to_numpy(v), np.float64) for v in (layer.mean, layer.variance))
    sigma = np.maximum(np.sqrt(variance), keras.backend.epsilon())
    a, b = (sigma, mean) if layer.invert else (1 / sigma, -mean / sigma)
    return emit_affine(emission, step, a, b)


def emit_affine(emission: Emission, step: Step, a: np.ndarray, b: np.ndarray) -> ir.Value:
    """Add y = a · x + b.

    Args:
        emission: where to add it.
        step: the layer.
        a: what broadcasts against the layer's input in Keras's layout: a scalar, or one number a channel.
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
