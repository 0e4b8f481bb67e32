"""BatchNormalization; the fold pass merges it into the convolution before it."""

import keras
import numpy as np
import onnx_ir as ir

from keras_qat.errors import UnsupportedModelError
from keras_qat.export.onnx.emission import Emission, Step, float_array, onnx_axis
from keras_qat.export.onnx.registry import register_converter


@register_converter(keras.layers.BatchNormalization)
def convert_batch_norm(emission: Emission, step: Step) -> ir.Value:
    """BatchNormalization with the moving statistics."""
    layer, rank = step.layer, len(step.output_shape)
    if onnx_axis(layer.axis, rank) != 1:
        raise UnsupportedModelError(
            f"The layer {layer.name!r} can't be exported. Received: BatchNormalization(axis={layer.axis}) on a tensor "
            f"of shape {step.output_shape}. Normalize the last axis (channels_last)."
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
