"""What moves numbers without changing them and keeps all of them: reshape, transpose, new axes, blocks to channels.

Each group has the layers of Keras and the operations of `keras.ops`.
"""

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import onnx_ir as ir
from keras.src.ops import nn
from keras.src.ops import numpy as operations

from keras_qat.onnx.emission import Emission, Step, register_converter
from keras_qat.onnx.layout import MATRIX_RANK, Shape, spatial_axes


@register_converter(keras.layers.Flatten)
def convert_flatten(emission: Emission, step: Step) -> ir.Value:
    """Reshape to a matrix; if the layer is channels_first, Keras moves the channels to the end before."""
    x, rank = in_keras_layout(emission, step), len(step.input_shapes[0])
    if step.layer.data_format == "channels_first" and rank > MATRIX_RANK:
        x = emission.op("Transpose", [x], f"{step.name}/channels_last", perm=[0, *range(2, rank), 1])
    return reshape(emission, step, x, step.input_shapes[0])


@register_converter(keras.layers.Reshape, operations.Reshape, operations.Ravel)
def convert_reshape(emission: Emission, step: Step) -> ir.Value:
    """Reshape to the shape of the output, in Keras's order of numbers."""
    return reshape(emission, step, in_keras_layout(emission, step), step.input_shapes[0])


@register_converter(operations.Squeeze, operations.ExpandDims)
def convert_new_axes(emission: Emission, step: Step) -> ir.Value:
    """Unsqueeze or Squeeze of Keras's axes."""
    given, wanted, axis = step.input_shapes[0], step.output_shape, step.layer.axis
    rank = max(len(given), len(wanted))
    axes = (
        [i for i, size in enumerate(given) if size == 1]
        if axis is None
        else [a % rank for a in ((axis,) if isinstance(axis, int) else axis)]
    )
    op_type = "Unsqueeze" if type(step.layer) is operations.ExpandDims else "Squeeze"
    constant = emission.constant(f"{step.name}/axes", sorted(axes), np.int64)
    value = emission.op(op_type, [in_keras_layout(emission, step), constant], step.name)
    return emission.to_file_layout(value, wanted, step.name)


@register_converter(keras.layers.RepeatVector)
def convert_repeat_vector(emission: Emission, step: Step) -> ir.Value:
    """Unsqueeze and Expand: the vector of each image, n times."""
    axes, target = (
        emission.constant(f"{step.name}/{name}", array, np.int64)
        for name, array in (("axes", [1]), ("shape", [1, step.layer.n, 1]))
    )
    row = emission.op("Unsqueeze", [step.inputs[0], axes], f"{step.name}/row")
    return emission.to_file_layout(emission.op("Expand", [row, target], step.name), step.output_shape, step.name)


def in_keras_layout(emission: Emission, step: Step) -> ir.Value:
    """The first input in Keras's layout."""
    return emission.to_keras_layout(step.inputs[0], step.input_shapes[0], step.name)


def reshape(emission: Emission, step: Step, x: ir.Value, given: Shape) -> ir.Value:
    """Give `x`, in Keras's layout and of shape `given`, the output shape of the step.

    Numbers may move between the images of a batch, as where the frames of a video become a batch of images.

    Raises:
        UnsupportedModelError: If several sizes are unknown.
    """
    target = _target(given, step.output_shape)
    if target is None:
        step.refuse(
            f"{given} to {step.output_shape}", "Leave at most one size open beside the batch, and keep the batch axis."
        )
    if target[:1] == [-1]:
        emission.batch_is_kept = False
    value = emission.op("Reshape", [x, emission.constant(f"{step.name}/shape", target, np.int64)], step.name)
    return emission.to_file_layout(value, step.output_shape, step.name)


def _target(given: Shape, wanted: Shape) -> list[int] | None:
    """The shape that a Reshape is given: 0 copies a size of the input, -1 stands for what is left.

    Example:
        >>> _target((None, 4, 6), (None, 24)), _target((None, 4, 6), (None, 6))
        ([0, 24], [-1, 6])
        >>> _target((None, None, 6), (None, None, 2, 3))
        [0, -1, 2, 3]
    """
    kept = bool(given) and bool(wanted) and given[0] == wanted[0] and not _moves_images(given, wanted)
    target = [0 if kept else -1 if wanted[0] is None else wanted[0]] if wanted else []
    target += [-1 if size is None else size for size in wanted[1:]]
    if target.count(-1) > 1:
        target = [0 if n == -1 and given[i : i + 1] == (None,) else n for i, n in enumerate(target)]
    return target if target.count(-1) <= 1 else None


def _moves_images(given: Shape, wanted: Shape) -> bool:
    """Whether an image of the output has another number of numbers; `False` if that is unknown."""
    if None in given[1:] or None in wanted[1:]:
        return False
    return math.prod(n or 0 for n in given[1:]) != math.prod(n or 0 for n in wanted[1:])


@register_converter(keras.layers.Permute)
def convert_permute(emission: Emission, step: Step) -> ir.Value:
    """Transpose of Keras's axes, without the batch."""
    return _transpose(emission, step, (0, *step.layer.dims))


@register_converter(operations.Transpose)
def convert_transpose(emission: Emission, step: Step) -> ir.Value:
    """Transpose of Keras's axes."""
    rank = len(step.output_shape)
    return _transpose(emission, step, range(rank)[::-1] if step.layer.axes is None else step.layer.axes)


@register_converter(operations.Swapaxes, operations.Moveaxis)
def convert_moveaxis(emission: Emission, step: Step) -> ir.Value:
    """Transpose of Keras's axes, found by moving those of an array."""
    layer, axes = step.layer, np.arange(len(step.output_shape))
    moved = (
        np.swapaxes(_labelled(axes), layer.axis1, layer.axis2)
        if type(layer) is operations.Swapaxes
        else np.moveaxis(_labelled(axes), layer.source, layer.destination)
    )
    return _transpose(emission, step, [size - 1 for size in moved.shape])


def _labelled(axes: np.ndarray) -> np.ndarray:
    """An array whose axis i has the size i + 1, which tells where it went."""
    return np.broadcast_to(np.zeros(()), tuple(axes + 1))


def _transpose(emission: Emission, step: Step, axes: Sequence[int]) -> ir.Value:
    """Put Keras's axes into the order `axes`."""
    permutation = [axis % len(axes) for axis in axes]
    value = emission.op("Transpose", [in_keras_layout(emission, step)], step.name, perm=permutation)
    return emission.to_file_layout(value, step.output_shape, step.name)


@register_converter(nn.DepthToSpace, nn.SpaceToDepth)
def convert_blocks(emission: Emission, step: Step) -> ir.Value:
    """Reshape, Transpose and Reshape, which engines run on integers; of an open size DepthToSpace or SpaceToDepth."""
    size, layout = step.layer.block_size, emission.layout
    shapes = [layout.shape(shape)[1:] for shape in (step.input_shapes[0], step.output_shape)]
    (channels, *given), (made, *wanted) = ([n for n in shape if isinstance(n, int)] for shape in shapes)
    if len(given) == len(wanted) == len(spatial_axes(len(step.output_shape))):
        deep = type(step.layer) is nn.DepthToSpace
        apart = (size, size, made, *given) if deep else (channels, wanted[0], size, wanted[1], size)
        order = (0, 3, 4, 1, 5, 2) if deep else (0, 3, 5, 1, 2, 4)
        x = step.inputs[0]
        for suffix, sizes in (("apart", apart), ("together", (made, *wanted))):
            constant = emission.constant(f"{step.name}/{suffix}_shape", [0, *sizes], np.int64)
            x = emission.op("Reshape", [x, constant], f"{step.name}/{suffix}")
            if suffix == "apart":
                x = emission.op("Transpose", [x], step.name, perm=list(order))
        x.shape = ir.Shape(layout.shape(step.output_shape))
        return x
    op_type = type(step.layer).__name__
    mode: dict[str, Any] = {"mode": "DCR"} if type(step.layer) is nn.DepthToSpace else {}
    return emission.op(op_type, step.inputs, step.name, step.output_shape, blocksize=step.layer.block_size, **mode)
