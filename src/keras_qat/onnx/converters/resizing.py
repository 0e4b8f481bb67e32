"""Images of another size: UpSampling, Resizing, CenterCrop and `keras.ops.image.resize`.

The operator Resize computes what Keras does for the nearest pixel and linear interpolation. For the others (a cubic or
Lanczos kernel, or antialiasing) each axis is multiplied by a matrix, which Keras's own resizing of unit vectors gives.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import onnx_ir as ir
from keras.src.ops import image

from keras_qat.onnx.converters.pooling import window_attributes
from keras_qat.onnx.converters.slicing import crop, pad
from keras_qat.onnx.emission import Emission, Step, register_converter
from keras_qat.onnx.layout import IMAGE_RANK, spatial_axes

_MODES: Mapping[str, dict[str, Any]] = {
    "nearest": {
        "mode": "nearest",
        "coordinate_transformation_mode": "half_pixel",
        "nearest_mode": "round_prefer_ceil",
    },
    "bilinear": {"mode": "linear", "coordinate_transformation_mode": "half_pixel"},
    "bicubic": {
        "mode": "cubic",
        "coordinate_transformation_mode": "half_pixel",
        "cubic_coeff_a": -0.5,
        "exclude_outside": 1,
    },
}

_ON_THE_TABLE = {1, 2, 4, 8}
"""Factors for which the cubic kernel is exact: TensorFlow rounds the places in a pixel to multiples of 1/1024."""

_REPEAT = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
"""Each pixel as often as the factor says."""


@register_converter(keras.layers.UpSampling1D, keras.layers.UpSampling2D, keras.layers.UpSampling3D)
def convert_up_sampling(emission: Emission, step: Step) -> ir.Value:
    """Resize by whole factors."""
    layer, rank = step.layer, len(step.output_shape)
    factors = [layer.size] if isinstance(layer.size, int) else list(layer.size)
    mode = getattr(layer, "interpolation", "nearest")
    if mode == "nearest":
        return _resize(emission, step, step.inputs[0], factors, _REPEAT)
    if mode == "bilinear":
        return _resize(emission, step, step.inputs[0], factors, _MODES[mode])
    given = emission.layout.spatial(step.input_shapes[0])
    if mode == "bicubic" and None in given and set(factors) <= _ON_THE_TABLE:
        # OpenVINO 2026.4 ignores `exclude_outside`, so that this is only for sizes that have no matrix.
        return _resize(emission, step, step.inputs[0], factors, _MODES[mode])
    if None in given or rank != IMAGE_RANK:
        step.refuse(f"interpolation={mode!r} on an input of unknown size", "Give the model a fixed input shape.")
    wanted = [(n or 0) * factor for n, factor in zip(given, factors, strict=True)]
    return _by_matrices(emission, step, step.inputs[0], [n or 0 for n in given], wanted, mode, antialias=False)


def _resize(
    emission: Emission, step: Step, x: ir.Value, factors: list[float] | list[int], attributes: Mapping[str, Any]
) -> ir.Value:
    """Resize the axes of the pixels, wherever the file has them, by factors."""
    rank = len(step.output_shape)
    # A layer without a data_format is 1-D and works on axis 1.
    last = getattr(step.layer, "data_format", "channels_last") == "channels_last"
    spatial = range(1, rank - 1) if last else range(2, rank)
    scales = np.ones(rank, np.float32)
    for axis, factor in zip(spatial, factors, strict=True):
        scales[emission.layout.axis(axis, rank)] = factor
    constant = emission.constant(f"{step.name}/scales", scales)
    return emission.op("Resize", [x, None, constant], step.name, step.output_shape, x.dtype, **attributes)


@register_converter(keras.layers.Resizing, image.Resize)
def convert_resize(emission: Emission, step: Step) -> ir.Value:
    """Resize to a fixed size, after a crop or a padding to its aspect ratio where the layer asks for one."""
    layer = step.layer
    wanted = (layer.height, layer.width) if isinstance(layer, keras.layers.Resizing) else tuple(layer.size)
    given = emission.layout.spatial(step.input_shapes[0])
    if len(step.output_shape) != IMAGE_RANK or None in given:
        step.refuse("an image of unknown size", "Give the model a fixed input shape, or resize images before it.")
    sizes, x = [n or 0 for n in given], step.inputs[0]
    whole = step.dtype is not ir.DataType.FLOAT
    x = emission.cast(x, ir.DataType.FLOAT, step.name)
    step = replace(step, inputs=(x,))
    if layer.crop_to_aspect_ratio or layer.pad_to_aspect_ratio:
        sizes, x = _to_aspect_ratio(emission, step, sizes, wanted)
    value = _to_size(emission, step, x, sizes, wanted, layer.interpolation, antialias=layer.antialias)
    if not whole:
        return value
    if layer.interpolation != "nearest" or layer.antialias:
        limits = np.iinfo(step.dtype.numpy())
        f = emission.formula(step, f"{step.name}/whole")
        value = f.last("Clip", f("Round", value), float(limits.min), float(limits.max))
    return emission.cast(value, step.dtype, step.name, step.output_shape)


def _to_aspect_ratio(
    emission: Emission, step: Step, sizes: list[int], wanted: tuple[int, ...]
) -> tuple[list[int], ir.Value]:
    """Crop or pad an image to the aspect ratio of the wanted size, computed as in Keras.

    Returns:
        The size of the image then, and the image.
    """
    (height, width), (rows, columns), pads = sizes, wanted, step.layer.pad_to_aspect_ratio
    ratio = [int(np.float32(width * rows) / np.float32(columns)), int(np.float32(height * columns) / np.float32(rows))]
    ends = [max(n, r) if pads else max(min(n, r), 1) for n, r in zip(sizes, ratio, strict=True)]
    before = [abs(int((end - n) / 2)) for n, end in zip(sizes, ends, strict=True)]
    if pads:
        # As in Keras, both sides get the same number of pixels, so that an odd one is left out.
        made = [n + 2 * b for n, b in zip(sizes, before, strict=True)]
        amounts = [(b, b) for b in before]
    else:
        made = ends
        amounts = [(b, n - end - b) for n, end, b in zip(sizes, ends, before, strict=True)]
    axes = [(0, 0), *amounts, (0, 0)] if emission.layout.channels_last else [(0, 0), (0, 0), *amounts]
    shape = [*step.output_shape]
    for axis, size in zip((1, 2) if emission.layout.channels_last else (2, 3), made, strict=True):
        shape[axis] = size
    inner = replace(step, name=f"{step.name}/aspect", output_shape=tuple(shape), dtype=ir.DataType.FLOAT)
    if all(amount == (0, 0) for amount in amounts):
        return made, step.inputs[0]
    return made, pad(emission, inner, axes, value=step.layer.fill_value) if pads else crop(emission, inner, axes)


def _to_size(
    emission: Emission,
    step: Step,
    x: ir.Value,
    given: list[int],
    wanted: tuple[int, ...],
    mode: str,
    *,
    antialias: bool,
) -> ir.Value:
    shrinks = any(m < n for n, m in zip(given, wanted, strict=True))
    if given == list(wanted):
        return x
    if mode not in {"nearest", "bilinear"} or (antialias and shrinks and mode != "nearest"):
        return _by_matrices(emission, step, x, given, list(wanted), mode, antialias=antialias)
    factors = [_factor(n, m) for n, m in zip(given, wanted, strict=True)]
    return _resize(emission, step, x, factors, _MODES[mode])


def _factor(n: int, m: int) -> float:
    """The least float32 factor f with ⌊n f⌋ = m in single and in double precision: so the operator finds the size."""
    factor = np.float32(m / n)
    while min(np.floor(np.float32(n) * factor), np.floor(n * float(factor))) < m:
        factor = np.nextafter(factor, np.float32(np.inf))
    return float(factor)


def _by_matrices(
    emission: Emission, step: Step, x: ir.Value, given: list[int], wanted: list[int], mode: str, *, antialias: bool
) -> ir.Value:
    """Height and width, each multiplied by the matrix of its resizing."""
    vertical, horizontal = (_matrix(n, m, mode, antialias=antialias) for n, m in zip(given, wanted, strict=True))
    rows = emission.op("MatMul", [emission.constant(f"{step.name}/rows", vertical), x], f"{step.name}/vertical")
    columns = emission.constant(f"{step.name}/columns", np.ascontiguousarray(horizontal.T))
    value = emission.op("MatMul", [rows, columns], step.name)
    value.shape = ir.Shape(emission.layout.shape(step.output_shape))
    return value


def _matrix(n: int, m: int, mode: str, *, antialias: bool) -> np.ndarray:
    """The matrix of shape (m, n) that resizes an axis: the unit vectors, resized by Keras."""
    resized = keras.ops.image.resize(
        np.eye(n, dtype=np.float32).reshape(1, n, n, 1),
        (m, n),
        interpolation=mode,
        antialias=antialias,
        data_format="channels_last",
    )
    return np.asarray(keras.ops.convert_to_numpy(resized), np.float32).reshape(m, n)


@register_converter(keras.layers.CenterCrop, keras.layers.RandomCrop)
def convert_center_crop(emission: Emission, step: Step) -> ir.Value:
    """Slice of the middle; an image that is too small is cropped to the aspect ratio and resized, as in Keras.

    At inference a RandomCrop is a center crop, which Keras computes by that crop and resize wherever the sizes differ.
    """
    layer, layout = step.layer, emission.layout
    given = layout.spatial(step.input_shapes[0])
    if len(step.output_shape) != IMAGE_RANK or None in given:
        step.refuse("an image of unknown size", "Give the model a fixed input shape.")
    sizes, wanted = [n or 0 for n in given], (layer.height, layer.width)
    spare = [n - m for n, m in zip(sizes, wanted, strict=True)]
    if min(spare) >= 0 and type(layer) is keras.layers.CenterCrop:
        amounts = [(n // 2, n - n // 2) for n in spare]
        return crop(emission, step, [(0, 0), *amounts, (0, 0)] if layout.channels_last else [(0, 0), (0, 0), *amounts])
    (height, width), (rows, columns) = sizes, wanted
    kept = [max(min(height, int(width * rows / columns)), 1), max(min(width, int(height * columns / rows)), 1)]
    before = [int((n - k) / 2) for n, k in zip(sizes, kept, strict=True)]
    amounts = [(b, n - k - b) for n, k, b in zip(sizes, kept, before, strict=True)]
    shape = list(step.output_shape)
    for axis, size in zip((1, 2) if layout.channels_last else (2, 3), kept, strict=True):
        shape[axis] = size
    inner = replace(step, name=f"{step.name}/crop", output_shape=tuple(shape))
    cropped = crop(emission, inner, [(0, 0), *amounts, (0, 0)] if layout.channels_last else [(0, 0), (0, 0), *amounts])
    return _to_size(emission, step, cropped, kept, wanted, "bilinear", antialias=False)


@register_converter(image.RGBToGrayscale)
def convert_grayscale(emission: Emission, step: Step) -> ir.Value:
    """A Conv of one pixel, with Keras's weights of red, green and blue; an image of one channel stays as it is."""
    if step.input_shapes[0] == step.output_shape:
        return step.inputs[0]
    x = emission.cast(step.inputs[0], ir.DataType.FLOAT, step.name)
    weights = np.array([0.2989, 0.5870, 0.1140], np.float32).reshape(1, 3, 1, 1)
    kernel = emission.constant(f"{step.name}/weights", weights)
    gray = emission.op("Conv", [x, kernel], step.name, step.output_shape, ir.DataType.FLOAT, kernel_shape=[1, 1])
    return emission.cast(gray, step.dtype, step.name, step.output_shape)


@register_converter(image.ExtractPatches)
def convert_extract_patches(emission: Emission, step: Step) -> ir.Value:
    """A Conv whose kernel picks the pixels of each patch."""
    layer = step.layer
    size = (layer.size, layer.size) if isinstance(layer.size, int) else tuple(layer.size)
    if len(size) != len(spatial_axes(IMAGE_RANK)) or len(step.output_shape) != IMAGE_RANK:
        step.refuse(f"size={size}", "Extract patches of a batch of 2-D images.")
    channels = step.input_shapes[0][-1 if emission.layout.channels_last else 1] or 0
    strides = size if layer.strides is None else layer.strides
    strides, dilations = ((n, n) if isinstance(n, int) else tuple(n) for n in (strides, layer.dilation_rate))
    picks = np.eye(size[0] * size[1] * channels, dtype=np.float32).reshape(-1, *size, channels)
    kernel = emission.constant(f"{step.name}/picks", np.ascontiguousarray(picks.transpose(0, 3, 1, 2)))
    spatial = emission.layout.spatial(step.input_shapes[0])
    window = window_attributes(step, size, strides, layer.padding, spatial, dilations)
    return emission.op("Conv", [step.inputs[0], kernel], step.name, step.output_shape, **window)
