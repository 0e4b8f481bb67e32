"""Pooling with windows, global pooling, and reductions such as `keras.ops.mean(x, axis=(1, 2))`."""

from typing import Any

import keras
import numpy as np
import onnx_ir as ir
from keras.src.ops import numpy as operations

from keras_qat.errors import UnsupportedModelError
from keras_qat.onnx.emission import Emission, Step, register_converter
from keras_qat.onnx.layout import HEIGHT_AND_WIDTH, IMAGE_RANK, Shape

_REDUCTIONS: dict[type, str] = {
    operations.Mean: "ReduceMean",
    operations.Max: "ReduceMax",
    operations.Min: "ReduceMin",
    operations.Sum: "ReduceSum",
}

_GLOBAL_POOLS = {"ReduceMean": "GlobalAveragePool", "ReduceMax": "GlobalMaxPool"}

_AXES_ARE_AN_INPUT = {"ReduceSum": 13}
"""The opset from which the axes are an input; 18 for the others."""


def window_attributes(
    size: tuple[int, int],
    strides: tuple[int, int],
    padding: str,
    spatial: Shape,
    dilations: tuple[int, int] = (1, 1),
) -> dict[str, Any]:
    """ONNX `kernel_shape`, `strides`, `pads` (or `auto_pad`) and `dilations` of a Keras window.

    Keras's "same" pads so that the output has ceil(n / stride) pixels, with the odd pixel at the end; in ONNX that is
    SAME_UPPER. Where the input size n is known, the pads are written out, which every engine understands.

    Args:
        size: height and width of the window.
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


@register_converter(keras.layers.MaxPooling2D)
def convert_max_pool(emission: Emission, step: Step) -> ir.Value:
    """MaxPool."""
    return _pool(emission, step, "MaxPool")


@register_converter(keras.layers.AveragePooling2D)
def convert_average_pool(emission: Emission, step: Step) -> ir.Value:
    """AveragePool, which as in Keras doesn't count padded pixels."""
    return _pool(emission, step, "AveragePool", count_include_pad=0)


def _pool(emission: Emission, step: Step, op_type: str, **attributes: Any) -> ir.Value:
    layer, spatial = step.layer, emission.layout.spatial(step.input_shapes[0])
    window = window_attributes(layer.pool_size, layer.strides, layer.padding, spatial)
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
    axes = emission.constant(f"{step.name}/squeeze_axes", HEIGHT_AND_WIDTH, np.int64)
    return emission.op("Squeeze", [pooled, axes], f"{step.name}/squeeze", step.output_shape)


@register_converter(*_REDUCTIONS)
def convert_reduction(emission: Emission, step: Step) -> ir.Value:
    """A global pooling for height and width of an image; else a Reduce operator in Keras's layout."""
    op_type, shape = _REDUCTIONS[type(step.layer)], step.input_shapes[0]
    if getattr(step.layer, "initial", None) is not None:
        raise UnsupportedModelError(
            f"The operation {step.name!r} can't be exported. Received: initial={step.layer.initial}. "
            "Leave it out, and use `keras.ops.maximum` or `minimum` behind."
        )
    rank = len(shape)
    axes = sorted(axis % rank for axis in (range(rank) if step.layer.axis is None else step.layer.axis))
    in_file = tuple(sorted(emission.layout.axis(axis, rank) for axis in axes))
    if rank == IMAGE_RANK and in_file == HEIGHT_AND_WIDTH and op_type in _GLOBAL_POOLS:
        return _global_pool(emission, step, _GLOBAL_POOLS[op_type])
    x = emission.to_keras_layout(step.inputs[0], shape, step.name)
    keepdims = int(step.layer.keepdims)
    if emission.opset >= _AXES_ARE_AN_INPUT.get(op_type, 18):
        constant = emission.constant(f"{step.name}/axes", axes, np.int64)
        value = emission.op(op_type, [x, constant], step.name, keepdims=keepdims)
    else:
        value = emission.op(op_type, [x], step.name, keepdims=keepdims, axes=axes)
    return emission.to_file_layout(value, step.output_shape, step.name)
