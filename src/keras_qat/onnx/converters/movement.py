"""What moves numbers without changing them: padding, cropping, slices, reshape, transpose, dropout at inference.

Each group has the layers of Keras and the operations of `keras.ops`, such as `x[:, 1:]`.
"""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import onnx_ir as ir
from keras.src.ops import numpy as operations

from keras_qat.errors import UnsupportedModelError
from keras_qat.onnx.emission import Emission, Step, register_converter
from keras_qat.onnx.layout import HEIGHT_AND_WIDTH, MATRIX_RANK

_END = np.iinfo(np.int64).max
"""The end of a slice that reaches the end of its axis."""


@register_converter(keras.layers.Dropout, keras.layers.SpatialDropout2D)
def convert_dropout(emission: Emission, step: Step) -> ir.Value:  # noqa: ARG001
    """No node: at inference dropout passes its input on."""
    return step.inputs[0]


@register_converter(keras.layers.ZeroPadding2D)
def convert_zero_padding(emission: Emission, step: Step) -> ir.Value:
    """Pad with zeros; the padding pass merges it into the window behind it."""
    (top, bottom), (left, right) = step.layer.padding
    pads = emission.constant(f"{step.name}/pads", [0, 0, top, left, 0, 0, bottom, right], np.int64)
    return emission.op("Pad", [step.inputs[0], pads], step.name, step.output_shape)


@register_converter(keras.layers.Flatten)
def convert_flatten(emission: Emission, step: Step) -> ir.Value:
    """Reshape to a matrix; if the layer is channels_first, Keras moves the channels to the end before."""
    x, rank = _in_keras_layout(emission, step), len(step.input_shapes[0])
    if step.layer.data_format == "channels_first" and rank > MATRIX_RANK:
        x = emission.op("Transpose", [x], f"{step.name}/channels_last", perm=[0, *range(2, rank), 1])
    return _reshape(emission, step, x)


@register_converter(keras.layers.Reshape, operations.Reshape, operations.Squeeze, operations.ExpandDims)
def convert_reshape(emission: Emission, step: Step) -> ir.Value:
    """Reshape to the shape of the output, in Keras's order of numbers."""
    return _reshape(emission, step, _in_keras_layout(emission, step))


def _in_keras_layout(emission: Emission, step: Step) -> ir.Value:
    """The first input in Keras's layout."""
    return emission.to_keras_layout(step.inputs[0], step.input_shapes[0], step.name)


def _reshape(emission: Emission, step: Step, x: ir.Value, *, sliced: bool = False) -> ir.Value:
    """Give `x`, in Keras's layout, the output shape of the step.

    Args:
        emission: the emission to add the node to.
        step: the layer or operation.
        x: the value to reshape.
        sliced: whether `x` has fewer numbers than the input of the step.

    Raises:
        UnsupportedModelError: If several sizes are unknown, or numbers would move between the images of a batch.
    """
    given, wanted = step.input_shapes[0], step.output_shape
    sizes = [[size for size in shape[1:] if size is not None] for shape in (given, wanted)]
    known = len(sizes[0]) + len(sizes[1]) == len(given) + len(wanted) - 2
    moves = not wanted or given[0] != wanted[0] or (known and not sliced and math.prod(sizes[0]) != math.prod(sizes[1]))
    if moves or wanted[1:].count(None) > 1:
        raise UnsupportedModelError(
            f"The reshape {step.name!r} can't be exported. Received: {given} to {wanted}. "
            "Keep the batch axis as it is, and leave at most one other size open."
        )
    target = [0, *(-1 if size is None else size for size in wanted[1:])]
    value = emission.op("Reshape", [x, emission.constant(f"{step.name}/shape", target, np.int64)], step.name)
    return emission.to_file_layout(value, wanted, step.name)


@register_converter(keras.layers.Permute)
def convert_permute(emission: Emission, step: Step) -> ir.Value:
    """Transpose of Keras's axes, without the batch."""
    return _transpose(emission, step, (0, *step.layer.dims))


@register_converter(operations.Transpose)
def convert_transpose(emission: Emission, step: Step) -> ir.Value:
    """Transpose of Keras's axes."""
    rank = len(step.output_shape)
    return _transpose(emission, step, range(rank)[::-1] if step.layer.axes is None else step.layer.axes)


def _transpose(emission: Emission, step: Step, axes: Sequence[int]) -> ir.Value:
    """Put Keras's axes into the order `axes`."""
    permutation = [axis % len(axes) for axis in axes]
    value = emission.op("Transpose", [_in_keras_layout(emission, step)], step.name, perm=permutation)
    return emission.to_file_layout(value, step.output_shape, step.name)


@register_converter(keras.layers.Cropping2D)
def convert_cropping(emission: Emission, step: Step) -> ir.Value:
    """Slice of height and width."""
    (top, bottom), (left, right) = step.layer.cropping
    ends = [_END if cut == 0 else -cut for cut in (bottom, right)]
    constants = _slice_constants(emission, step, starts=[top, left], ends=ends, axes=HEIGHT_AND_WIDTH)
    return emission.op("Slice", [step.inputs[0], *constants], step.name, step.output_shape)


@register_converter(operations.GetItem)
def convert_get_item(emission: Emission, step: Step) -> ir.Value:
    """Slice, and Reshape if a single index drops its axis."""
    key = step.arguments["key"]
    keys = _full(key if isinstance(key, tuple) else (key,), len(step.input_shapes[0]), step)
    cuts = {axis: _as_slice(k) for axis, k in enumerate(keys) if k != slice(None)}
    steps = [_default(k.step, 1) for k in cuts.values()]
    constants = _slice_constants(
        emission,
        step,
        starts=[_default(k.start, 0 if n > 0 else _END) for k, n in zip(cuts.values(), steps, strict=True)],
        ends=[_default(k.stop, _END if n > 0 else -_END) for k, n in zip(cuts.values(), steps, strict=True)],
        axes=list(cuts),
        steps=steps,
    )
    sliced = emission.op("Slice", [_in_keras_layout(emission, step), *constants], f"{step.name}/slice")
    if any(isinstance(k, int) for k in keys):
        return _reshape(emission, step, sliced, sliced=True)
    return emission.to_file_layout(sliced, step.output_shape, step.name)


def _slice_constants(emission: Emission, step: Step, **arrays: Sequence[int]) -> list[ir.Value]:
    """The inputs of a Slice behind the tensor, in the order given."""
    return [emission.constant(f"{step.name}/{name}", array, np.int64) for name, array in arrays.items()]


def _full(keys: tuple[Any, ...], rank: int, step: Step) -> list[Any]:
    """One key for each axis, with `...` expanded.

    Raises:
        UnsupportedModelError: If a key is neither an integer nor a slice.
    """
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


def _default(value: int | None, default: int) -> int:
    return default if value is None else value
