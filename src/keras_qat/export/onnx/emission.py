"""The state of one emission: the ONNX nodes and constants made so far, and how converters add to them.

Inside the file every rank-4 tensor is NCHW, the layout that the engines compute in; Keras's NHWC is kept at the model's
inputs and outputs. Converters see ONNX values in that layout and Keras shapes in Keras's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import onnx_ir as ir

from keras_qat.errors import UnsupportedModelError

Shape = tuple[int | None, ...]

BATCH = "batch"
"""The name of the dynamic batch axis."""

_NCHW = (0, 3, 1, 2)
_IMAGE_RANK = 4


@dataclass(frozen=True)
class Step:
    """One Keras call to convert.

    Args:
        name: the node's name, which the ONNX node takes over.
        layer: the Keras layer.
        inputs: the ONNX values that it reads.
        input_shapes: their Keras shapes, `None` for the batch axis.
        output_shape: the Keras shape of its first output.
        args: the positional arguments of the call, tensors as `TensorRef`.
        kwargs: the keyword arguments, likewise.
    """

    name: str
    layer: Any
    inputs: tuple[ir.Value, ...]
    input_shapes: tuple[Shape, ...]
    output_shape: Shape
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] | None = None


class Emission:
    """Collects the nodes and constants of one ONNX graph.

    Args:
        opset: ONNX operator set that the nodes must be of.
    """

    def __init__(self, opset: int) -> None:
        self.opset = opset
        self.tape = ir.tape.Tape()
        self._names: set[str] = set()

    def op(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        name: str,
        shape: Shape | None = None,
        dtype: ir.DataType = ir.DataType.FLOAT,
        **attributes: Any,
    ) -> ir.Value:
        """Add one node.

        Args:
            op_type: ONNX operator.
            inputs: what it reads, `None` for an optional input left out.
            name: wanted name; a number is added where it is taken.
            shape: Keras shape of the output, for shape annotation.
            dtype: element type of the output.
            **attributes: the operator's attributes.

        Returns:
            Its output.
        """
        unique = self.unique(name)
        output = ir.val(f"{unique}/output", dtype, None if shape is None else onnx_shape(shape))
        return self.tape.op(op_type, inputs, attributes, name=unique, output=output)

    def constant(self, name: str, array: np.ndarray) -> ir.Value:
        """Add an initializer; `array` keeps its rank, so a scalar stays a scalar."""
        return self.tape.initializer(ir.tensor(array, name=self.unique(name)))

    def unique(self, name: str) -> str:
        """`name`, with a number behind it where it is taken."""
        found, number = name, 1
        while found in self._names:
            number += 1
            found = f"{name}_{number}"
        self._names.add(found)
        return found

    def to_file_layout(self, value: ir.Value, shape: Shape, name: str) -> ir.Value:
        """A Keras-layout value as NCHW, where it is an image."""
        if len(shape) != _IMAGE_RANK:
            return value
        return self.op("Transpose", [value], f"{name}/to_nchw", shape, perm=list(_NCHW))

    def to_keras_layout(self, value: ir.Value, shape: Shape, name: str) -> ir.Value:
        """An NCHW value as Keras's NHWC, where it is an image."""
        if len(shape) != _IMAGE_RANK:
            return value
        transposed = self.op("Transpose", [value], f"{name}/to_nhwc", perm=[0, 2, 3, 1])
        transposed.shape = ir.Shape(named_shape(shape))
        return transposed


def onnx_shape(shape: Shape) -> list[int | str | None]:
    """A Keras shape in the file's layout, the batch axis named.

    Example:
        >>> onnx_shape((None, 7, 5, 64))
        ['batch', 64, 7, 5]
    """
    named = named_shape(shape)
    return [named[axis] for axis in _NCHW] if len(shape) == _IMAGE_RANK else named


def named_shape(shape: Shape) -> list[int | str | None]:
    """A Keras shape in its own layout, the batch axis named."""
    return [BATCH if axis == 0 and size is None else size for axis, size in enumerate(shape)]


def float_array(variable: Any) -> np.ndarray:
    """A Keras weight as a float32 array."""
    return np.asarray(keras.ops.convert_to_numpy(variable), dtype=np.float32)


def onnx_axis(axis: int, rank: int) -> int:
    """A Keras axis in the file's layout.

    Example:
        >>> onnx_axis(-1, 4), onnx_axis(-1, 2)
        (1, 1)
    """
    axis %= rank
    return _NCHW.index(axis) if rank == _IMAGE_RANK else axis


def require_channels_last(step: Step) -> None:
    """Refuse a channels-first layer.

    Raises:
        UnsupportedModelError: the layer's `data_format` is `"channels_first"`.
    """
    if step.layer.data_format != "channels_last":
        raise UnsupportedModelError(
            f"The layer {step.layer.name!r} can't be exported. Received: data_format={step.layer.data_format!r}. "
            'Build the model with data_format="channels_last"; the file computes in NCHW either way.'
        )
