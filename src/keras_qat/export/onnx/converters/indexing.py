"""Operations of `keras.ops` that move numbers: reshape, transpose, squeeze, slices as in `x[:, 1:]`."""

from typing import Any

import numpy as np
import onnx_ir as ir
from keras.src.ops import numpy as operations

from keras_qat.errors import UnsupportedModelError
from keras_qat.export.onnx.converters.arithmetic import arguments
from keras_qat.export.onnx.converters.movement import permute, reshape
from keras_qat.export.onnx.emission import Emission, Step
from keras_qat.export.onnx.registry import register_converter

_LAST = np.iinfo(np.int64).max


@register_converter(operations.Reshape, operations.Squeeze, operations.ExpandDims)
def convert_reshape(emission: Emission, step: Step) -> ir.Value:
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
