"""BatchNormalization, which the fold pass merges into the convolution before it, and LayerNormalization."""

import keras
import numpy as np
import onnx_ir as ir

from keras_qat.errors import UnsupportedModelError
from keras_qat.export.onnx.emission import Emission, Step, float_array
from keras_qat.export.onnx.registry import register_converter


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
