"""BatchNormalization, which the fold pass merges into the convolution before it, and LayerNormalization.

Per-channel affine layers, y = a · x + b, as Mul and Add; the fold pass merges them into the convolution before.
"""

import keras
import numpy as np
import onnx_ir as ir
from keras.src.applications.convnext import LayerScale

from keras_qat.errors import UnsupportedModelError
from keras_qat.onnx.emission import Emission, Step, float_array, register_converter


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
    channels = step.output_shape[layer.axis]
    ones, zeros = np.ones(channels, np.float32), np.zeros(channels, np.float32)
    parameters = {
        "gamma": float_array(layer.gamma) if layer.scale else ones,
        "beta": float_array(layer.beta) if layer.center else zeros,
        "mean": float_array(layer.moving_mean),
        "variance": float_array(layer.moving_variance),
    }
    constants = [emission.constant(f"{step.name}/{key}", array) for key, array in parameters.items()]
    return emission.op(
        "BatchNormalization",
        [step.inputs[0], *constants],
        step.name,
        step.output_shape,
        epsilon=float(layer.epsilon),
    )


_OPSET_OF_LAYER_NORMALIZATION = 17


@register_converter(keras.layers.LayerNormalization)
def convert_layer_norm(emission: Emission, step: Step) -> ir.Value:
    """LayerNormalization over the last Keras axis, for which an image is put into Keras's layout."""
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
    channels = int(step.output_shape[-1] or 0)
    gamma = float_array(layer.gamma) if layer.scale else np.ones(channels, np.float32)
    beta = float_array(layer.beta) if layer.center else np.zeros(channels, np.float32)
    x = emission.to_keras_layout(step.inputs[0], step.output_shape, step.name)
    constants = [emission.constant(f"{step.name}/{key}", array) for key, array in (("gamma", gamma), ("beta", beta))]
    value = emission.op("LayerNormalization", [x, *constants], step.name, axis=-1, epsilon=float(layer.epsilon))
    return emission.to_file_layout(value, step.output_shape, step.name)


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
