"""The state of one emission: the ONNX nodes and constants made so far, and how converters add to them.

Converters see ONNX values in the file's layout (images are NCHW) and Keras shapes in Keras's; `Emission.layout`
translates.

Which function turns which Keras layer into ONNX nodes: a registry by type.

Which Keras nodes an ONNX node stands for, in its `metadata_props`.

Passes merge and rename: a Conv may stand for a padding, a convolution and its batch norm. With the names kept on the
node, a file can be held to the placement, which speaks of Keras nodes.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import keras
import numpy as np
import onnx_ir as ir

from keras_qat.errors import UnsupportedModelError
from keras_qat.onnx.layout import Layout, Shape, named_shape


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


Converter = Callable[[Emission, Step], ir.Value | tuple[ir.Value, ...]]
"""Adds the nodes of one step and returns its output value, or several in the order of the Keras outputs."""

_FORWARD = ("call", "convolution_op")
"""The methods in which a layer says what it computes."""

F = TypeVar("F", bound=Converter)

_CONVERTERS: dict[type, Converter] = {}


def register_converter(*layer_types: type) -> Callable[[F], F]:
    """Decorate the function that converts these layer types, and the subclasses that compute the same.

    A subclass with a `call` of its own needs a converter of its own.

    Example:
        >>> import keras
        >>> class Negate(keras.layers.Layer):
        ...     def call(self, x):
        ...         return -x
        >>> @register_converter(Negate)
        ... def convert_negate(emission, step):
        ...     return emission.op("Neg", step.inputs, step.name, step.output_shape)
        >>> find_converter(Negate()) is convert_negate
        True
    """

    def register(function: F) -> F:
        for layer_type in layer_types:
            _CONVERTERS[layer_type] = function
        return function

    return register


def find_converter(layer: Any) -> Converter:
    """The converter of a layer.

    Raises:
        UnsupportedModelError: none is registered for its type.
    """
    for base in type(layer).__mro__:
        if base in _CONVERTERS and not _computes_otherwise(type(layer), base):
            return _CONVERTERS[base]
    raise UnsupportedModelError(
        f"The layer {layer.name!r} can't be exported to ONNX. Received: a {type(layer).__name__}, for which no "
        "converter is registered. Write one with `@keras_qat.register_converter(YourLayer)`, or replace the layer."
    )


def _computes_otherwise(layer_type: type, base: type) -> bool:
    """Whether a subclass has a forward pass of its own, which the converter of its base doesn't know."""
    return any(getattr(layer_type, name, None) is not getattr(base, name, None) for name in _FORWARD)


KEY = "keras_qat.nodes"

_HELPER = "keras_qat.helper"


def mark(node: ir.Node, names: Iterable[str]) -> None:
    """Say that `node` stands for these Keras nodes too.

    Example:
        >>> conv = ir.node("Conv", [])
        >>> mark(conv, ["conv"])
        >>> mark(conv, ["batch_norm", "conv"])
        >>> keras_nodes(conv)
        ('conv', 'batch_norm')
    """
    node.metadata_props[KEY] = json.dumps(list(dict.fromkeys((*keras_nodes(node), *names))))


def mark_helper(node: ir.Node) -> None:
    """Say that `node` stands for no Keras node: a pass put it in, and it only hands on numbers.

    Example:
        >>> pool = ir.node("MaxPool", [])
        >>> mark_helper(pool)
        >>> is_helper(pool)
        True
    """
    node.metadata_props[_HELPER] = "true"


def is_helper(node: ir.Node) -> bool:
    """Whether a pass put `node` in, to hand on numbers."""
    return _HELPER in node.metadata_props


def keras_nodes(node: ir.Node) -> tuple[str, ...]:
    """The Keras nodes that `node` stands for; none where nobody said so."""
    try:
        names = json.loads(node.metadata_props.get(KEY, "[]"))
    except json.JSONDecodeError:
        return ()
    return tuple(str(name) for name in names) if isinstance(names, list) else ()
