"""What drops, adds, repeats or reorders numbers along axes: padding, cropping, slices, splits, tiles, flips."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import onnx_ir as ir
from keras.src.ops import core, image
from keras.src.ops import numpy as operations

from keras_qat.graph import TensorRef
from keras_qat.onnx.converters.movement import in_keras_layout
from keras_qat.onnx.emission import Emission, Step, register_converter

_END = np.iinfo(np.int64).max
"""The end of a slice that reaches the end of its axis."""

Pads = Sequence[tuple[int, int]]
"""How much is added before and after each Keras axis."""


def pad(emission: Emission, step: Step, pads: Pads, mode: str = "constant", value: float = 0.0) -> ir.Value:
    """Pad Keras's axes; zeros in front of a window are merged into it by a pass."""
    rank = len(pads)
    in_file = [pads[axis] for axis in emission.layout.to_file(rank)]
    constant = emission.constant(f"{step.name}/pads", [a for a, _ in in_file] + [b for _, b in in_file], np.int64)
    inputs = [step.inputs[0], constant]
    if value:
        inputs.append(emission.constant(f"{step.name}/value", value, step.dtype.numpy()))
    attributes: dict[str, Any] = {} if mode == "constant" else {"mode": mode}
    return emission.op("Pad", inputs, step.name, step.output_shape, **attributes)


def _spatial(step: Step, amounts: Any) -> Pads:
    """Amounts for the axes of an image's pixels, as amounts for all axes; 1-D layers have no data_format."""
    pairs = [tuple(pair) for pair in amounts]
    last = getattr(step.layer, "data_format", "channels_last") == "channels_last"
    return [(0, 0), *pairs, (0, 0)] if last else [(0, 0), (0, 0), *pairs]


@register_converter(keras.layers.ZeroPadding1D, keras.layers.ZeroPadding2D, keras.layers.ZeroPadding3D)
def convert_zero_padding(emission: Emission, step: Step) -> ir.Value:
    """Pad with zeros."""
    padding = step.layer.padding
    return pad(emission, step, _spatial(step, (padding,) if isinstance(padding[0], int) else padding))


_MODES: Mapping[str, str] = {"constant": "constant", "reflect": "reflect", "edge": "edge"}
"""ONNX's names of the modes that it has since opset 13."""


@register_converter(operations.Pad)
def convert_pad(emission: Emission, step: Step) -> ir.Value:
    """Pad; the symmetric mode, which ONNX doesn't have, by a Gather along each axis."""
    rank, mode = len(step.output_shape), step.layer.mode
    width = step.layer.pad_width
    pads: Pads = [tuple(pair) for pair in (width * rank if len(width) == 1 else width)]
    value = step.arguments.get("constant_values") or 0.0
    if isinstance(value, TensorRef):
        step.refuse("a value that the model computes", "Pad with a number.")
    if mode in _MODES:
        return pad(emission, step, pads, mode, float(np.asarray(value)))
    if mode != "symmetric":
        step.refuse(f"mode={mode!r}", "Use constant, reflect, edge or symmetric.")
    x = step.inputs[0]
    for axis, (before, after) in enumerate(pads):
        size = step.input_shapes[0][axis]
        if before == after == 0:
            continue
        if size is None:
            step.refuse("an axis of unknown size", "Give the model a fixed input shape.")
        indices = np.pad(np.arange(size), (before, after), mode="symmetric")
        x = gather(emission, step, x, indices, emission.layout.axis(axis, rank), f"{step.name}/axis_{axis}")
    x.shape = ir.Shape(emission.layout.shape(step.output_shape))
    return x


def gather(emission: Emission, step: Step, x: ir.Value, indices: np.ndarray, axis: int, name: str) -> ir.Value:
    """The numbers at fixed places along one axis of the value as it is."""
    constant = emission.constant(f"{step.name}/indices", indices, np.int64)
    return emission.op("Gather", [x, constant], name, dtype=x.dtype, axis=axis)


@register_converter(image.PadImages, image.CropImages)
def convert_pad_images(emission: Emission, step: Step) -> ir.Value:
    """Pad or Slice of height and width; the amount that isn't given follows from the sizes."""
    layer, layout = step.layer, emission.layout
    given, made = (layout.spatial(shape) for shape in (step.input_shapes[0], step.output_shape))
    pads = isinstance(layer, image.PadImages)
    names = (("top_padding", "bottom_padding"), ("left_padding", "right_padding"))
    if not pads:
        names = (("top_cropping", "bottom_cropping"), ("left_cropping", "right_cropping"))
    if len(step.output_shape) != len(layout.to_file(4)) or None in (*given, *made):
        step.refuse("an image of unknown size", "Give the model a fixed input shape.")
    amounts = []
    for (first, second), n, m in zip(names, given, made, strict=True):
        total = abs((m or 0) - (n or 0))
        before = getattr(layer, first)
        after = getattr(layer, second)
        before = total - after if before is None else before
        amounts.append((before, total - before))
    if pads:
        return pad(emission, step, _spatial(step, amounts))
    return crop(emission, step, _spatial(step, amounts))


def crop(emission: Emission, step: Step, cuts: Pads) -> ir.Value:
    """Cut numbers off the beginning and the end of Keras's axes."""
    rank = len(cuts)
    cut = {emission.layout.axis(axis, rank): pair for axis, pair in enumerate(cuts) if pair != (0, 0)}
    if not cut:
        return step.inputs[0]
    constants = _slice_constants(
        emission,
        step,
        starts=[before for before, _ in cut.values()],
        ends=[-after if after else _END for _, after in cut.values()],
        axes=list(cut),
    )
    return emission.op("Slice", [step.inputs[0], *constants], step.name, step.output_shape)


@register_converter(keras.layers.Cropping1D, keras.layers.Cropping2D, keras.layers.Cropping3D)
def convert_cropping(emission: Emission, step: Step) -> ir.Value:
    """Slice of the axes of the pixels."""
    cropping = step.layer.cropping
    return crop(emission, step, _spatial(step, (cropping,) if isinstance(cropping[0], int) else cropping))


@register_converter(operations.GetItem)
def convert_get_item(emission: Emission, step: Step) -> ir.Value:
    """Slice, then Squeeze where a single index drops its axis and Unsqueeze where `None` adds one."""
    key = step.arguments["key"]
    given = step.input_shapes[0]
    # Keras writes a tuple into its files as a list, and reads a list as a tuple.
    keys = _full(tuple(key) if isinstance(key, tuple | list) else (key,), len(given), step)
    of_axes = [k for k in keys if k is not None]
    if given[0] is None and not isinstance(of_axes[0], slice):
        step.refuse(f"an index {keys} that picks one image of the batch", "Keep the batch axis as it is.")
    cuts = {axis: _as_slice(k) for axis, k in enumerate(of_axes) if k != slice(None)}
    x = in_keras_layout(emission, step)
    if cuts:
        steps = [_default(k.step, 1) for k in cuts.values()]
        constants = _slice_constants(
            emission,
            step,
            starts=[_default(k.start, 0 if n > 0 else _END) for k, n in zip(cuts.values(), steps, strict=True)],
            ends=[_default(k.stop, _END if n > 0 else -_END) for k, n in zip(cuts.values(), steps, strict=True)],
            axes=list(cuts),
            steps=steps,
        )
        x = emission.op("Slice", [x, *constants], f"{step.name}/slice")
    dropped = [axis for axis, k in enumerate(of_axes) if not isinstance(k, slice)]
    added = [i for i, k in enumerate(k for k in keys if k is None or isinstance(k, slice)) if k is None]
    for op_type, axes in (("Squeeze", dropped), ("Unsqueeze", added)):
        if axes:
            constant = emission.constant(f"{step.name}/axes", axes, np.int64)
            x = emission.op(op_type, [x, constant], f"{step.name}/{op_type.lower()}")
    return emission.to_file_layout(x, step.output_shape, step.name)


def _slice_constants(emission: Emission, step: Step, **arrays: Sequence[int]) -> list[ir.Value]:
    """The inputs of a Slice behind the tensor, in the order given."""
    return [emission.constant(f"{step.name}/{name}", list(array), np.int64) for name, array in arrays.items()]


def _full(keys: tuple[Any, ...], rank: int, step: Step) -> list[Any]:
    """One key for each axis, and `None` for each new axis, with `...` expanded.

    Raises:
        UnsupportedModelError: If a key is neither an integer nor a slice.
    """
    keys = tuple(int(k) if isinstance(k, np.integer) else k for k in keys)
    bounds = [b for k in keys if isinstance(k, slice) for b in (k.start, k.stop, k.step)]
    plain = all(k is None or isinstance(k, int | slice) or k is Ellipsis for k in keys)
    if not plain or not all(b is None or isinstance(b, int | np.integer) for b in bounds):
        step.refuse(f"an index {keys}", "Use integers and slices, or `keras.ops.take`.")
    if Ellipsis not in keys:
        keys = (*keys, Ellipsis)
    at = keys.index(Ellipsis)
    given = sum(k is not None for k in keys) - 1
    return [*keys[:at], *[slice(None)] * (rank - given), *keys[at + 1 :]]


def _as_slice(key: int | slice) -> slice:
    if isinstance(key, slice):
        return key
    return slice(key, key + 1 if key != -1 else None)


def _default(value: int | None, default: int) -> int:
    return default if value is None else int(value)


@register_converter(core.Slice)
def convert_slice(emission: Emission, step: Step) -> ir.Value:
    """Slice of fixed places."""
    starts, sizes = step.arguments["start_indices"], step.layer.shape
    leaves = keras.tree.flatten(starts)
    if any(isinstance(leaf, TensorRef) for leaf in leaves):
        step.refuse("places that the model computes", "Use fixed indices.")
    places = [int(leaf) for leaf in np.ravel(np.asarray(leaves))]
    axes = [axis for axis, size in enumerate(sizes) if (places[axis], size) != (0, step.input_shapes[0][axis])]
    constants = _slice_constants(
        emission,
        step,
        starts=[places[axis] for axis in axes],
        ends=[places[axis] + sizes[axis] for axis in axes],
        axes=axes,
    )
    value = emission.op("Slice", [in_keras_layout(emission, step), *constants], step.name)
    return emission.to_file_layout(value, step.output_shape, step.name)


@register_converter(operations.Split, operations.ArraySplit, operations.Hsplit, operations.Vsplit, operations.Dsplit)
def convert_split(emission: Emission, step: Step) -> tuple[ir.Value, ...]:
    """A Slice for each part: past a Slice, not past a Split, ONNX Runtime moves the Q/DQ pair to its reader."""
    axis = _SPLIT_AXIS.get(type(step.layer), getattr(step.layer, "axis", 1))
    rank = len(step.input_shapes[0])
    sizes = [shape[axis] for shape in step.output_shapes]
    if None in sizes:
        step.refuse("an axis of unknown size", "Give the model a fixed input shape.")
    at, values, start = emission.layout.axis(axis, rank), [], 0
    for shape, size in zip(step.output_shapes, sizes, strict=True):
        end = start + (size or 0)
        constants = _slice_constants(emission, step, starts=[start], ends=[end], axes=[at])
        values.append(emission.op("Slice", [step.inputs[0], *constants], step.name, shape))
        start = end
    return tuple(values)


_SPLIT_AXIS: Mapping[type, int] = {operations.Hsplit: 1, operations.Vsplit: 0, operations.Dsplit: 2}
"""The axis of operations that split along a fixed one."""


@register_converter(core.Unstack)
def convert_unstack(emission: Emission, step: Step) -> tuple[ir.Value, ...]:
    """A Gather of each index, which drops the axis."""
    rank, axis = len(step.input_shapes[0]), step.layer.axis
    x = in_keras_layout(emission, step)
    values = (
        gather(emission, step, x, np.array(i), axis % rank, f"{step.name}/{i}") for i in range(len(step.output_shapes))
    )
    return tuple(
        emission.to_file_layout(value, shape, step.name)
        for value, shape in zip(values, step.output_shapes, strict=True)
    )


@register_converter(operations.Stack)
def convert_stack(emission: Emission, step: Step) -> ir.Value:
    """Unsqueeze of each tensor or constant, and Concat along the new axis."""
    axis = step.layer.axis % len(step.output_shape)
    axes = emission.constant(f"{step.name}/axes", [axis], np.int64)
    rows = []
    for leaf in keras.tree.flatten((step.args, dict(step.kwargs))):
        if isinstance(leaf, TensorRef):
            value, shape = step.operand(leaf)
            x = emission.to_keras_layout(emission.cast(value, step.dtype, step.name), shape, step.name)
        else:
            array = np.asarray(keras.ops.convert_to_numpy(leaf)).astype(step.dtype.numpy())
            x = emission.constant(f"{step.name}/constant", array)
        rows.append(emission.op("Unsqueeze", [x, axes], f"{step.name}/row"))
    return emission.to_file_layout(emission.op("Concat", rows, step.name, axis=axis), step.output_shape, step.name)


@register_converter(operations.Flip, operations.Flipud, operations.Fliplr)
def convert_flip(emission: Emission, step: Step) -> ir.Value:
    """Slice with steps of -1."""
    rank = len(step.output_shape)
    axis = {operations.Flipud: 0, operations.Fliplr: 1}.get(type(step.layer), getattr(step.layer, "axis", None))
    axes = list(range(rank)) if axis is None else [axis] if isinstance(axis, int) else list(axis)
    in_file = [emission.layout.axis(a, rank) for a in axes]
    constants = _slice_constants(
        emission, step, starts=[_END] * len(axes), ends=[-_END] * len(axes), axes=in_file, steps=[-1] * len(axes)
    )
    return emission.op("Slice", [step.inputs[0], *constants], step.name, step.output_shape)


@register_converter(operations.Roll)
def convert_roll(emission: Emission, step: Step) -> ir.Value:
    """Two Slices and a Concat along each axis."""
    shift, axis, rank = step.layer.shift, step.layer.axis, len(step.output_shape)
    if axis is None:
        step.refuse("axis=None", "Name the axes.")
    axes, shifts = ([n] if isinstance(n, int) else list(n) for n in (axis, shift))
    shifts = shifts * len(axes) if len(shifts) == 1 else shifts
    x = step.inputs[0]
    for a, by in zip(axes, shifts, strict=True):
        size, at = step.input_shapes[0][a], emission.layout.axis(a, rank)
        # Rolling by more than the size wraps around.
        cut = -by if size is None else -(by % size)
        if cut == 0:
            continue
        first = _slice_constants(emission, step, starts=[cut], ends=[_END], axes=[at])
        second = _slice_constants(emission, step, starts=[0], ends=[cut], axes=[at])
        halves = [emission.op("Slice", [x, *cuts], f"{step.name}/part") for cuts in (first, second)]
        x = emission.op("Concat", halves, step.name, step.output_shape, axis=at)
    return x


@register_converter(operations.Tile, operations.BroadcastTo)
def convert_tile(emission: Emission, step: Step) -> ir.Value:
    """Tile, or Expand, in Keras's layout."""
    given, wanted = step.input_shapes[0], step.output_shape
    x = in_keras_layout(emission, step)
    if type(step.layer) is operations.BroadcastTo:
        sizes = [1 if size is None else size for size in wanted]
        value = emission.op("Expand", [x, emission.constant(f"{step.name}/shape", sizes, np.int64)], step.name)
        return emission.to_file_layout(value, wanted, step.name)
    repeats = [step.layer.repeats] if isinstance(step.layer.repeats, int) else list(step.layer.repeats)
    repeats = [1] * (len(wanted) - len(repeats)) + repeats
    if len(given) < len(wanted):
        axes = emission.constant(f"{step.name}/axes", list(range(len(wanted) - len(given))), np.int64)
        x = emission.op("Unsqueeze", [x, axes], f"{step.name}/expand")
    if repeats[0] != 1:
        emission.batch_is_kept = False
    value = emission.op("Tile", [x, emission.constant(f"{step.name}/repeats", repeats, np.int64)], step.name)
    return emission.to_file_layout(value, wanted, step.name)


@register_converter(operations.Repeat)
def convert_repeat(emission: Emission, step: Step) -> ir.Value:
    """Gather, with each index as often as its number is repeated."""
    axis, rank, repeats = step.layer.axis, len(step.output_shape), step.layer.repeats
    size = None if axis is None else step.input_shapes[0][axis]
    if axis is None or size is None:
        step.refuse(f"axis={axis}, of unknown size", "Repeat along an axis of fixed size.")
    indices = np.repeat(np.arange(size), repeats)
    value = gather(emission, step, step.inputs[0], indices, emission.layout.axis(axis, rank), step.name)
    value.shape = ir.Shape(emission.layout.shape(step.output_shape))
    return value
