"""The state of one emission: the ONNX nodes and constants made so far, and how converters add to them.

Converters see ONNX values in the file's layout (images are NCHW) and Keras shapes in Keras's; `Emission.layout`
translates.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import onnx_ir as ir

from keras_qat.export.onnx.layout import Layout, Shape, named_shape


@dataclass(frozen=True)
class Step:
    """One Keras call to convert.

    Args:
        name: the node's name, which the ONNX node takes over.
        layer: the Keras layer, or the `keras.ops` operation.
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
        layout: where the Keras model keeps the channels of an image.
    """

    def __init__(self, opset: int, layout: Layout) -> None:
        self.opset = opset
        self.layout = layout
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
        output = ir.val(f"{unique}/output", dtype, None if shape is None else self.layout.shape(shape))
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
        """A Keras-layout value of that Keras shape as NCHW, where it is an image."""
        if not self.layout.moves(len(shape)):
            return value
        return self.op("Transpose", [value], f"{name}/to_nchw", shape, perm=list(self.layout.to_file))

    def to_keras_layout(self, value: ir.Value, shape: Shape, name: str) -> ir.Value:
        """An NCHW value of that Keras shape in Keras's layout, where it is an image."""
        if not self.layout.moves(len(shape)):
            return value
        transposed = self.op("Transpose", [value], f"{name}/to_nhwc", perm=list(self.layout.to_keras))
        transposed.shape = ir.Shape(named_shape(shape))
        return transposed


def float_array(variable: Any) -> np.ndarray:
    """A Keras weight as a float32 array."""
    return np.asarray(keras.ops.convert_to_numpy(variable), dtype=np.float32)
