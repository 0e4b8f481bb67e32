"""What a converter works with: the emission that collects ONNX nodes and constants, and the registry of converters.

Converters see ONNX values in the file's layout (images are NCHW) and shapes in Keras's layout; `Emission.layout`
translates between the two.

Passes merge and rename nodes: a Conv may stand for a padding, a convolution and its batch norm. So each ONNX node keeps
the names of the Keras nodes that it stands for in its `metadata_props`, and a file can be compared with the placement,
which names Keras nodes.
"""

import inspect
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import keras
import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from keras_qat.errors import UnsupportedModelError
from keras_qat.graph import known_type, register_whole
from keras_qat.onnx.layout import Layout, Shape, named_shape

_NODES = "keras_qat.nodes"
_HELPER = "keras_qat.helper"
"""Keys in the metadata of an ONNX node."""


@dataclass(frozen=True)
class Step:
    """One Keras call to convert.

    Args:
        name: the node's name, which the ONNX node takes over.
        layer: the Keras layer, or the `keras.ops` operation.
        inputs: the ONNX values that it reads.
        input_shapes: their Keras shapes, `None` for the batch axis.
        output_shape: the Keras shape of its first output.
        args: the positional arguments of the call, with a `TensorRef` for each tensor.
        kwargs: the keyword arguments, likewise.
    """

    name: str
    layer: Any
    inputs: tuple[ir.Value, ...]
    input_shapes: tuple[Shape, ...]
    output_shape: Shape
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def arguments(self) -> Mapping[str, Any]:
        """The arguments of the call by the names of the parameters of `layer.call`."""
        return inspect.signature(self.layer.call).bind(*self.args, **self.kwargs).arguments


class Emission:
    """Collects the nodes and constants of one ONNX graph.

    Args:
        opset: the ONNX operator set of the nodes.
        layout: the layout of the Keras model's images.
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
            op_type: the ONNX operator.
            inputs: the values that it reads, `None` for an optional input that is left out.
            name: the name of the node; if it is taken, a number is appended.
            shape: the Keras shape of the output, to annotate it.
            dtype: the element type of the output.
            **attributes: the attributes of the operator.

        Returns:
            The output of the node.
        """
        unique = self.unique(name)
        output = ir.val(f"{unique}/output", dtype, None if shape is None else self.layout.shape(shape))
        return self.tape.op(op_type, inputs, attributes, name=unique, output=output)

    def constant(self, name: str, array: npt.ArrayLike, dtype: npt.DTypeLike | None = None) -> ir.Value:
        """Add an initializer.

        Args:
            name: the name of the initializer; if it is taken, a number is appended.
            array: the numbers. The rank is kept, so a scalar stays a scalar.
            dtype: the element type; that of `array` if not given.
        """
        return self.tape.initializer(ir.tensor(np.asarray(array, dtype), name=self.unique(name)))

    def unique(self, name: str) -> str:
        """Reserve `name`, with a number appended if it is taken."""
        unique = unique_name(name, self._names)
        self._names.add(unique)
        return unique

    def to_file_layout(self, value: ir.Value, shape: Shape, name: str) -> ir.Value:
        """Transpose a value from Keras's layout to the file's, if it is an image, and annotate its Keras shape."""
        value.shape = ir.Shape(named_shape(shape))
        if not self.layout.moves(len(shape)):
            return value
        return self.op("Transpose", [value], f"{name}/to_nchw", shape, perm=list(self.layout.to_file))

    def to_keras_layout(self, value: ir.Value, shape: Shape, name: str) -> ir.Value:
        """Transpose a value of that Keras shape from the file's layout to Keras's, if it is an image."""
        if not self.layout.moves(len(shape)):
            return value
        transposed = self.op("Transpose", [value], f"{name}/to_nhwc", perm=list(self.layout.to_keras))
        transposed.shape = ir.Shape(named_shape(shape))
        return transposed


def unique_name(name: str, taken: Collection[str]) -> str:
    """`name`, with the first free number from 2 appended if it is taken.

    Example:
        >>> unique_name("conv", {"conv", "conv_2"})
        'conv_3'
    """
    unique, number = name, 1
    while unique in taken:
        number += 1
        unique = f"{name}_{number}"
    return unique


def float_array(variable: Any) -> np.ndarray:
    """A Keras weight, or another tensor of any backend, as a float32 array."""
    return np.asarray(keras.ops.convert_to_numpy(variable), dtype=np.float32)


Converter = Callable[[Emission, Step], ir.Value | tuple[ir.Value, ...]]
"""Adds the nodes of one step and returns its output value, or a tuple of values in the order of the Keras outputs."""

F = TypeVar("F", bound=Converter)

_CONVERTERS: dict[type, Converter] = {}


def register_converter(*layer_types: type) -> Callable[[F], F]:
    """Register the decorated function as the converter of these layer types and of subclasses that compute the same.

    A subclass that overrides anything of what its parent computes needs its own converter; without one, its `call` is
    read.

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
            register_whole(layer_type)
        return function

    return register


def find_converter(layer: Any, name: str | None = None, unread: str | None = None) -> Converter:
    """Find the converter of a layer or operation.

    Args:
        layer: the layer, or an operation of `keras.ops`.
        name: what a message calls it, such as the path to it in nested models; its name if not given.
        unread: why its `call` could not be read, if that was tried.

    Raises:
        UnsupportedModelError: If no converter is registered for its type.
    """
    known = known_type(layer, _CONVERTERS)
    if known is not None:
        return _CONVERTERS[known]
    what, type_name = name or layer.name, type(layer).__name__
    if unread is not None:
        raise UnsupportedModelError(
            f"The layer {what!r} can't be exported to ONNX. Received: a {type_name}, for which no converter is "
            f"registered, and which can't be read either: {unread}. Write its `call` with Keras layers and "
            "`keras.ops`, without conditions on numbers and without other libraries; or write a converter with "
            f"`@keras_qat.register_converter({type_name})`; or replace the layer."
        )
    raise UnsupportedModelError(
        f"The {'layer' if isinstance(layer, keras.layers.Layer) else 'operation'} {what!r} can't be exported to ONNX. "
        f"Received: a {type_name}, for which no converter is registered. Write one with "
        f"`@keras_qat.register_converter({type_name})`, or replace it."
    )


def mark(node: ir.Node, names: Iterable[str]) -> None:
    """Record that `node` also stands for these Keras nodes.

    Example:
        >>> conv = ir.node("Conv", [])
        >>> mark(conv, ["conv"])
        >>> mark(conv, ["batch_norm", "conv"])
        >>> keras_nodes(conv)
        ('conv', 'batch_norm')
    """
    node.metadata_props[_NODES] = json.dumps(list(dict.fromkeys((*keras_nodes(node), *names))))


def mark_helper(node: ir.Node) -> None:
    """Record that `node` stands for no Keras node, since a pass added it.

    Example:
        >>> pool = ir.node("MaxPool", [])
        >>> mark_helper(pool)
        >>> is_helper(pool)
        True
    """
    node.metadata_props[_HELPER] = "true"


def is_helper(node: ir.Node) -> bool:
    """Whether `node` was marked by `mark_helper`."""
    return _HELPER in node.metadata_props


def keras_nodes(node: ir.Node) -> tuple[str, ...]:
    """The names of the Keras nodes that `node` stands for; empty if none are recorded."""
    try:
        names = json.loads(node.metadata_props.get(_NODES, "[]"))
    except json.JSONDecodeError:
        return ()
    return tuple(str(name) for name in names) if isinstance(names, list) else ()
