"""Pooling with windows, and global and adaptive pooling, over one to three axes."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import onnx_ir as ir
from keras.src.ops import nn

from keras_qat.graph import lookup
from keras_qat.onnx.emission import Emission, Step, register_converter
from keras_qat.onnx.layout import Shape, spatial_axes


def window_attributes(
    step: Step,
    size: tuple[int, ...],
    strides: tuple[int, ...],
    padding: str,
    spatial: Shape,
    dilations: tuple[int, ...],
) -> dict[str, Any]:
    """ONNX `kernel_shape`, `strides`, `pads` (or `auto_pad`) and `dilations` of a Keras window.

    Keras's "same" pads so that the output has ceil(n / stride) pixels, with the odd pixel at the end; in ONNX that is
    SAME_UPPER. The pads are written out, which every engine understands, wherever they are the same for any input:
    where the input size n is known, or the stride is 1.

    Args:
        step: the layer, for messages.
        size: the sizes of the window.
        strides: the stride along each axis.
        padding: "valid", "same", or "causal", which pads at the beginning only.
        spatial: the sizes of the input, `None` where unknown.
        dilations: the dilation along each axis.

    Raises:
        UnsupportedModelError: If the pads depend on the size of the input, and the window is dilated.
    """
    attributes: dict[str, Any] = {"kernel_shape": list(size), "strides": list(strides)}
    if set(dilations) != {1}:
        attributes["dilations"] = list(dilations)
    if padding == "valid":
        return attributes
    reach = [(k - 1) * dilation + 1 for k, dilation in zip(size, dilations, strict=True)]
    if padding == "causal":
        return {**attributes, "pads": [k - 1 for k in reach] + [0] * len(reach)}
    totals = [_padded(n, k, stride) for n, k, stride in zip(spatial, reach, strides, strict=True)]
    pads = [t for t in totals if t is not None]
    if len(pads) == len(totals):
        return {**attributes, "pads": [t // 2 for t in pads] + [t - t // 2 for t in pads]}
    if "dilations" in attributes:
        step.refuse(
            f"strides={strides} and dilation_rate={dilations} on an input of unknown size",
            "Give the model a fixed input shape.",
        )
    return {**attributes, "auto_pad": "SAME_UPPER"}


def _padded(n: int | None, reach: int, stride: int) -> int | None:
    """How many pixels "same" adds to an axis of n pixels; `None` if that depends on an unknown n."""
    if n is None:
        return reach - 1 if stride == 1 else None
    return max((-(-n // stride) - 1) * stride + reach - n, 0)


_POOLS: Mapping[type, str] = {
    **dict.fromkeys((keras.layers.MaxPooling1D, keras.layers.MaxPooling2D, keras.layers.MaxPooling3D), "MaxPool"),
    nn.MaxPool: "MaxPool",
    **dict.fromkeys(
        (keras.layers.AveragePooling1D, keras.layers.AveragePooling2D, keras.layers.AveragePooling3D), "AveragePool"
    ),
    nn.AveragePool: "AveragePool",
}

_UNCOUNTED: Mapping[str, dict[str, Any]] = {"AveragePool": {"count_include_pad": 0}}
"""As in Keras, a mean doesn't count padded pixels."""


@register_converter(*_POOLS)
def convert_pool(emission: Emission, step: Step) -> ir.Value:
    """MaxPool or AveragePool."""
    layer, spatial = step.layer, emission.layout.spatial(step.input_shapes[0])
    op_type = lookup(layer, _POOLS)
    size, strides = (
        (n,) * len(spatial) if isinstance(n, int) else tuple(n)
        for n in (layer.pool_size, layer.pool_size if layer.strides is None else layer.strides)
    )
    window = window_attributes(step, size, strides, layer.padding, spatial, (1,) * len(spatial))
    return emission.op(op_type, step.inputs, step.name, step.output_shape, **window, **_UNCOUNTED.get(op_type, {}))


_GLOBAL_POOLS: Mapping[type, tuple[str, str]] = {
    **dict.fromkeys(
        (
            keras.layers.GlobalAveragePooling1D,
            keras.layers.GlobalAveragePooling2D,
            keras.layers.GlobalAveragePooling3D,
        ),
        ("GlobalAveragePool", "ReduceMean"),
    ),
    **dict.fromkeys(
        (keras.layers.GlobalMaxPooling1D, keras.layers.GlobalMaxPooling2D, keras.layers.GlobalMaxPooling3D),
        ("GlobalMaxPool", "ReduceMax"),
    ),
}
"""The pooling of images with the channels in front, and the reduction that computes the same in any layout."""


@register_converter(*_GLOBAL_POOLS)
def convert_global_pool(emission: Emission, step: Step) -> ir.Value:
    """GlobalAveragePool or GlobalMaxPool, squeezed unless `keepdims`."""
    layer, rank = step.layer, len(step.input_shapes[0])
    pool, reduction = lookup(layer, _GLOBAL_POOLS)
    if len(step.inputs) != 1:
        step.refuse("a mask", "Pool the sequence without `Masking` before it.")
    if rank in emission.layout.ranks:
        return global_pool(emission, step, pool, keepdims=layer.keepdims)
    last = layer.data_format == "channels_last"
    axes = tuple(range(1, rank - 1)) if last else tuple(range(2, rank))
    return emission.reduce(reduction, step.inputs[0], axes, step.name, step.output_shape, keepdims=layer.keepdims)


def global_pool(emission: Emission, step: Step, op_type: str, *, keepdims: bool) -> ir.Value:
    """A global pooling of an image, squeezed unless `keepdims`."""
    pooled = emission.op(op_type, step.inputs, step.name, emission.layout.pooled(step.input_shapes[0]))
    if keepdims:
        return pooled
    # Past a Squeeze, not past a Flatten, ONNX Runtime moves the Q up to the pooling, which then runs in integers.
    axes = emission.constant(f"{step.name}/squeeze_axes", spatial_axes(len(step.input_shapes[0])), np.int64)
    return emission.op("Squeeze", [pooled, axes], f"{step.name}/squeeze", step.output_shape)


_ADAPTIVE: Mapping[type, str] = {
    **dict.fromkeys(
        (
            keras.layers.AdaptiveAveragePooling1D,
            keras.layers.AdaptiveAveragePooling2D,
            keras.layers.AdaptiveAveragePooling3D,
        ),
        "AveragePool",
    ),
    nn.AdaptiveAveragePool: "AveragePool",
    **dict.fromkeys(
        (keras.layers.AdaptiveMaxPooling1D, keras.layers.AdaptiveMaxPooling2D, keras.layers.AdaptiveMaxPooling3D),
        "MaxPool",
    ),
    nn.AdaptiveMaxPool: "MaxPool",
}


@register_converter(*_ADAPTIVE)
def convert_adaptive_pool(emission: Emission, step: Step) -> ir.Value:
    """A pooling with one window where the sizes divide, else one axis after another: a MatMul, or Gather and ReduceMax.

    Number i of m outputs pools the inputs from ⌊i n / m⌋ to ⌈(i + 1) n / m⌉ - 1.
    """
    layer, spatial = step.layer, emission.layout.spatial(step.input_shapes[0])
    op_type = lookup(layer, _ADAPTIVE)
    wanted = (layer.output_size,) * len(spatial) if isinstance(layer.output_size, int) else tuple(layer.output_size)
    known = [n for n in spatial if n is not None]
    if len(known) < len(spatial):
        step.refuse("an input of unknown size", "Give the model a fixed input shape.")
    if all(n % m == 0 for n, m in zip(known, wanted, strict=True)):
        size = [n // m for n, m in zip(known, wanted, strict=True)]
        return emission.op(op_type, step.inputs, step.name, step.output_shape, kernel_shape=size, strides=size)
    value = step.inputs[0]
    for axis, n, m in zip(spatial_axes(len(spatial) + 2), known, wanted, strict=True):
        bounds = [(i * n // m, -(-(i + 1) * n // m)) for i in range(m)]
        value = _ADAPT[op_type](emission, step, value, axis, n, bounds)
    value.shape = ir.Shape(emission.layout.shape(step.output_shape))
    return value


def _mean_windows(
    emission: Emission, step: Step, value: ir.Value, axis: int, n: int, bounds: list[tuple[int, int]]
) -> ir.Value:
    shares = np.zeros((n, len(bounds)), np.float32)
    for i, (start, end) in enumerate(bounds):
        shares[start:end, i] = 1 / (end - start)
    rank = len(step.output_shape)
    swap = [rank - 1 if a == axis else axis if a == rank - 1 else a for a in range(rank)]
    last = emission.op("Transpose", [value], f"{step.name}/last_{axis}", perm=swap)
    mean = emission.op("MatMul", [last, emission.constant(f"{step.name}/shares", shares)], f"{step.name}/mean_{axis}")
    return emission.op("Transpose", [mean], f"{step.name}/back_{axis}", perm=swap)


def _max_windows(
    emission: Emission,
    step: Step,
    value: ir.Value,
    axis: int,
    n: int,  # noqa: ARG001
    bounds: list[tuple[int, int]],
) -> ir.Value:
    longest = max(end - start for start, end in bounds)
    # A shorter window repeats its last pixel.
    indices = np.array([[min(start + k, end - 1) for k in range(longest)] for start, end in bounds], np.int64)
    windows = emission.op(
        "Gather", [value, emission.constant(f"{step.name}/windows", indices)], f"{step.name}/windows_{axis}", axis=axis
    )
    return emission.reduce("ReduceMax", windows, (axis + 1,), f"{step.name}/max_{axis}", None, keepdims=False)


_ADAPT = {"AveragePool": _mean_windows, "MaxPool": _max_windows}
