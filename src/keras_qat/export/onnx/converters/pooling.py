"""Max, average and global pooling."""

from typing import Any

import keras
import numpy as np
import onnx_ir as ir

from keras_qat.export.onnx.converters.window import window_attributes
from keras_qat.export.onnx.emission import Emission, Step
from keras_qat.export.onnx.registry import register_converter

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
