"""Layers that move numbers without changing them: padding, cropping, flatten, reshape, dropout at inference.

Operations of `keras.ops` that move numbers: reshape, transpose, squeeze, slices as in `x[:, 1:]`.
"""

import math
from typing import Any

import keras
import numpy as np
import onnx_ir as ir
from keras.src.ops import numpy as operations

from keras_qat.errors import UnsupportedModelError
from keras_qat.onnx.converters.elementwise import arguments
from keras_qat.onnx.emission import Emission, Step, register_converter
from keras_qat.onnx.layout import named_shape

_MATRIX_RANK = 2


@register_converter(keras.layers.ZeroPadding2D)
def convert_zero_padding(emission: Emission, step: Step) -> ir.Value:
    """Pad with zeros; the padding pass merges it into the window behind it."""
    (top, bottom), (left, right) = step.layer.padding
    pads = emission.constant(f"{step.name}/pads", np.array([0, 0, top, left, 0, 0, bottom, right], np.int64))
    return emission.op("Pad", [step.inputs[0], pads], step.name, step.output_shape)


@register_converter(keras.layers.Flatten)
def convert_flatten(emission: Emission, step: Step) -> ir.Value:
    """Reshape to a matrix; Keras puts the channels of a channels_first Flatten last before."""
    x, rank = emission.to_keras_layout(step.inputs[0], step.input_shapes[0], step.name), len(step.input_shapes[0])
    if step.layer.data_format == "channels_first" and rank > _MATRIX_RANK:
        x = emission.op("Transpose", [x], f"{step.name}/channels_last", perm=[0, *range(2, rank), 1])
    return reshape(emission, step, x)


@register_converter(keras.layers.Reshape)
def convert_reshape(emission: Emission, step: Step) -> ir.Value:
    """Reshape in Keras's order of numbers; the batch axis is kept."""
    return reshape(emission, step, emission.to_keras_layout(step.inputs[0], step.input_shapes[0], step.name))


def reshape(emission: Emission, step: Step, x: ir.Value, *, cut: bool = False) -> ir.Value:
    """Give `x`, in Keras's layout, the step's output shape.

    Args:
        emission: where to add it.
        step: the layer or operation.
        x: what to reshape.
        cut: whether numbers were left out before.

    Raises:
        UnsupportedModelError: several sizes are unknown, or numbers move between the images of a batch.
    """
    given, wanted = step.input_shapes[0], step.output_shape
    sizes = [[size for size in shape[1:] if size is not None] for shape in (given, wanted)]
    known = len(sizes[0]) + len(sizes[1]) == len(given) + len(wanted) - 2
    moves = not wanted or given[0] != wanted[0] or (known and not cut and math.prod(sizes[0]) != math.prod(sizes[1]))
    if moves or wanted[1:].count(None) > 1:
        raise UnsupportedModelError(
            f"The reshape {step.name!r} can't be exported. Received: {given} to {wanted}. "
            "Keep the batch axis as it is, and leave at most one other size open."
        )
    target = [0, *(-1 if n is None else n for n in wanted[1:])]
    shape = emission.constant(f"{step.name}/shape", np.array(target, np.int64))
    value = emission.op("Reshape", [x, shape], step.name)
    value.shape = ir.Shape(named_shape(step.output_shape))
    return emission.to_file_layout(value, step.output_shape, step.name)


@register_converter(keras.layers.Permute)
def convert_permute(emission: Emission, step: Step) -> ir.Value:
    """Transpose of Keras's axes."""
    return permute(emission, step, (0, *step.layer.dims))


def permute(emission: Emission, step: Step, axes: tuple[int, ...]) -> ir.Value:
    """Transpose Keras's axes to the order `axes`."""
    x = emission.to_keras_layout(step.inputs[0], step.input_shapes[0], step.name)
    value = emission.op("Transpose", [x], step.name, perm=list(axes))
    value.shape = ir.Shape(named_shape(step.output_shape))
    return emission.to_file_layout(value, step.output_shape, step.name)


@register_converter(keras.layers.Cropping2D)
def convert_cropping(emission: Emission, step: Step) -> ir.Value:
    """Slice of height and width."""
    (top, bottom), (left, right) = step.layer.cropping
    last = np.iinfo(np.int64).max
    ends = [last if cut == 0 else -cut for cut in (bottom, right)]
    arrays = {"starts": [top, left], "ends": ends, "axes": [2, 3]}
    constants = [emission.constant(f"{step.name}/{key}", np.array(a, np.int64)) for key, a in arrays.items()]
    return emission.op("Slice", [step.inputs[0], *constants], step.name, step.output_shape)


@register_converter(keras.layers.Dropout, keras.layers.SpatialDropout2D)
def convert_dropout(emission: Emission, step: Step) -> ir.Value:  # noqa: ARG001
    """Nothing: dropout passes its input at inference."""
    return step.inputs[0]


_LAST = np.iinfo(np.int64).max


@register_converter(operations.Reshape, operations.Squeeze, operations.ExpandDims)
def convert_reshape_operation(emission: Emission, step: Step) -> ir.Value:
    """Reshape to the output's shape, in Keras's order of numbers."""
    return reshape(emission, step, emission.to_keras_layout(step.inputs[0], step.input_shapes[0], step.name))


@register_converter(operations.Transpose)
def convert_transpose(emission: Emission, step: Step) -> ir.Value:
    """Transpose of Keras's axes."""
    rank = len(step.output_shape)
    axes = tuple(range(rank)[::-1]) if step.layer.axes is None else tuple(axis % rank for axis in step.layer.axes)
    return permute(emission, step, axes)


@register_converter(operations.GetItem)
def convert_get_item(emission: Emission, step: Step) -> ir.Value:
    """Slice, and Reshape where a single index drops its axis."""
    key = arguments(step)["key"]
    keys = _full(key if isinstance(key, tuple) else (key,), len(step.input_shapes[0]), step)
    x = emission.to_keras_layout(step.inputs[0], step.input_shapes[0], step.name)
    cuts = [(axis, _as_slice(k)) for axis, k in enumerate(keys) if k != slice(None)]
    arrays = {
        "starts": [_default(k.start, 0 if _step(k) > 0 else _LAST) for _, k in cuts],
        "ends": [_default(k.stop, _LAST if _step(k) > 0 else -_LAST) for _, k in cuts],
        "axes": [axis for axis, _ in cuts],
        "steps": [_step(k) for _, k in cuts],
    }
    constants = [emission.constant(f"{step.name}/{name}", np.array(a, np.int64)) for name, a in arrays.items()]
    sliced = emission.op("Slice", [x, *constants], f"{step.name}/slice")
    if any(isinstance(k, int) for k in keys):
        return reshape(emission, step, sliced, cut=True)
    return emission.to_file_layout(sliced, step.output_shape, step.name)


def _full(keys: tuple[Any, ...], rank: int, step: Step) -> list[Any]:
    """One key for each axis, `...` spelled out."""
    if not all(isinstance(k, int | slice) or k is Ellipsis for k in keys):
        raise UnsupportedModelError(
            f"The operation {step.name!r} can't be exported. Received: an index {keys}. Use integers and slices."
        )
    if Ellipsis not in keys:
        keys = (*keys, Ellipsis)
    at = keys.index(Ellipsis)
    return [*keys[:at], *[slice(None)] * (rank - len(keys) + 1), *keys[at + 1 :]]


def _as_slice(key: int | slice) -> slice:
    if isinstance(key, slice):
        return key
    return slice(key, key + 1 if key != -1 else None)


def _step(key: slice) -> int:
    return _default(key.step, 1)


def _default(value: int | None, default: int) -> int:
    return default if value is None else value
