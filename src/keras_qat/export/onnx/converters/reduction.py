"""Operations of `keras.ops` over whole axes: `keras.ops.mean(x, axis=(1, 2))`, `max`, `sum`."""

import numpy as np
import onnx_ir as ir
from keras.src.ops import numpy as operations

from keras_qat.errors import UnsupportedModelError
from keras_qat.export.onnx.emission import Emission, Step
from keras_qat.export.onnx.layout import IMAGE_RANK, named_shape
from keras_qat.export.onnx.registry import register_converter

_REDUCTIONS: dict[type, str] = {
    operations.Mean: "ReduceMean",
    operations.Max: "ReduceMax",
    operations.Min: "ReduceMin",
    operations.Sum: "ReduceSum",
}

_GLOBAL_POOLS = {"ReduceMean": "GlobalAveragePool", "ReduceMax": "GlobalMaxPool"}

_HEIGHT_AND_WIDTH = [2, 3]

_AXES_ARE_AN_INPUT = {"ReduceSum": 13}
"""The opset from which the axes are an input; 18 for the others."""


@register_converter(*_REDUCTIONS)
def convert_reduction(emission: Emission, step: Step) -> ir.Value:
    """A global pooling where it is one; a Reduce operator on Keras's axes elsewhere."""
    op_type, shape = _REDUCTIONS[type(step.layer)], step.input_shapes[0]
    if getattr(step.layer, "initial", None) is not None:
        raise UnsupportedModelError(
            f"The operation {step.name!r} can't be exported. Received: initial={step.layer.initial}. "
            "Leave it out, and use `keras.ops.maximum` or `minimum` behind."
        )
    rank = len(shape)
    axes = sorted(axis % rank for axis in (range(rank) if step.layer.axis is None else step.layer.axis))
    in_file = sorted(emission.layout.axis(axis, rank) for axis in axes)
    if rank == IMAGE_RANK and in_file == _HEIGHT_AND_WIDTH and op_type in _GLOBAL_POOLS:
        pooled = emission.op(_GLOBAL_POOLS[op_type], step.inputs, step.name, emission.layout.pooled(shape))
        if step.layer.keepdims:
            return pooled
        return emission.op("Flatten", [pooled], f"{step.name}/flatten", step.output_shape, axis=1)
    x = emission.to_keras_layout(step.inputs[0], shape, step.name)
    keepdims = int(step.layer.keepdims)
    if emission.opset >= _AXES_ARE_AN_INPUT.get(op_type, 18):
        constant = emission.constant(f"{step.name}/axes", np.array(axes, np.int64))
        value = emission.op(op_type, [x, constant], step.name, keepdims=keepdims)
    else:
        value = emission.op(op_type, [x], step.name, keepdims=keepdims, axes=axes)
    value.shape = ir.Shape(named_shape(step.output_shape))
    return emission.to_file_layout(value, step.output_shape, step.name)
