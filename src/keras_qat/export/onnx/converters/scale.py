"""Per-channel affine layers, y = a · x + b, as Mul and Add; the fold pass merges them into the convolution before."""

import keras
import numpy as np
import onnx_ir as ir
from keras.src.applications.convnext import LayerScale

from keras_qat.errors import UnsupportedModelError
from keras_qat.export.onnx.emission import Emission, Step, float_array
from keras_qat.export.onnx.registry import register_converter

_IMAGE_RANK = 4


@register_converter(keras.layers.Rescaling)
def convert_rescaling(emission: Emission, step: Step) -> ir.Value:
    """Scale and offset, one number or one a channel."""
    return emit_affine(emission, step, np.asarray(step.layer.scale), np.asarray(step.layer.offset))


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
        a: a scalar, or one number for each of the last axis; leading axes of size 1 are fine.
        b: likewise.

    Raises:
        UnsupportedModelError: `a` or `b` varies along another axis than the last.
    """
    value = step.inputs[0]
    for op_type, name, array, neutral in (("Mul", step.name, a, 1), ("Add", f"{step.name}/offset", b, 0)):
        if np.all(array == neutral):
            continue
        constant = emission.constant(f"{name}/{op_type.lower()}", _per_channel(array, step))
        value = emission.op(op_type, [value, constant], name, step.output_shape)
    return value


def _per_channel(array: np.ndarray, step: Step) -> np.ndarray:
    """The constant in the file's layout, float32: a scalar stays one."""
    array = np.asarray(array, np.float32)
    if array.size == 1:
        return array.reshape(())
    if array.shape[-1] != array.size:
        raise UnsupportedModelError(
            f"The layer {step.layer.name!r} can't be exported. Received: constants of shape {array.shape}. "
            "Scale by one number, or by one for each channel (the last axis)."
        )
    return array.reshape(1, -1, 1, 1) if len(step.output_shape) == _IMAGE_RANK else array.reshape(-1)
