"""What a converter works with: the emission that collects ONNX nodes and constants, and the registry of converters.

Converters see ONNX values in the file's layout (images are NCHW) and shapes in Keras's layout; `Emission.layout`
translates between the two.

Passes merge and rename nodes: a Conv may stand for a padding, a convolution and its batch norm. So each ONNX node keeps
the names of the Keras nodes that it stands for in its `metadata_props`, and a file can be compared with the placement,
which names Keras nodes. In a file, a node without that record stands for the Keras node at the start of its own name.
"""

import inspect
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn, TypeVar

import keras
import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from keras_qat.errors import UnsupportedModelError, UserError
from keras_qat.files import parse_json
from keras_qat.graph import TensorRef, known_type, register_whole
from keras_qat.onnx.layout import Layout, Shape, named_shape

_NODES = "keras_qat.nodes"
_HELPER = "keras_qat.helper"
"""Keys in the metadata of an ONNX node."""

_AXES_ARE_AN_INPUT = {"ReduceSum": 13}
"""The opset from which the axes of a Reduce operator are an input; 18 for the others."""


@dataclass(frozen=True)
class Step:
    """One Keras call to convert.

    Args:
        name: the node's name, which the ONNX node takes over.
        layer: the Keras layer, or the `keras.ops` operation.
        inputs: the ONNX values that it reads.
        input_shapes: their Keras shapes, `None` for the batch axis.
        output_shape: the Keras shape of its first output.
        output_shapes: the Keras shapes of all its outputs.
        dtype: the element type of its first output in the file.
        path: what messages call the layer; its name if not given.
        unread: why the `call` of an unknown layer could not be read, if that was tried.
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
    output_shapes: tuple[Shape, ...] = ()
    dtype: ir.DataType = ir.DataType.FLOAT
    path: str | None = None
    unread: str | None = None

    @property
    def arguments(self) -> Mapping[str, Any]:
        """The arguments of the call by the names of the parameters of `layer.call`."""
        return inspect.signature(self.layer.call).bind(*self.args, **self.kwargs).arguments

    def operand(self, ref: TensorRef) -> tuple[ir.Value, Shape]:
        """The value and the Keras shape of a tensor among the arguments."""
        leaves = keras.tree.flatten((self.args, dict(self.kwargs)))
        index = [leaf.name for leaf in leaves if isinstance(leaf, TensorRef)].index(ref.name)
        return self.inputs[index], self.input_shapes[index]

    def refuse(self, received: str, advice: str) -> NoReturn:
        """Refuse the step.

        Args:
            received: what of its configuration can't be exported.
            advice: what to do instead, a sentence.

        Raises:
            UnsupportedModelError: Always.
        """
        raise UnsupportedModelError(
            f"{self.name!r} can't be exported. Received: a {type(self.layer).__name__} with {received}. {advice}"
        )


class Emission:
    """Collects the nodes and constants of one ONNX graph.

    Args:
        opset: the ONNX operator set of the nodes.
        layout: the layout of the Keras model's images.

    `dtype` is the element type of nodes whose converter names none: that of the output of the current step.
    `batch_is_kept` is `False` from the first step on that moves numbers between the images of a batch.
    """

    def __init__(self, opset: int, layout: Layout) -> None:
        self.opset = opset
        self.layout = layout
        self.dtype = ir.DataType.FLOAT
        self.batch_is_kept = True
        self.tape = ir.tape.Tape()
        self._names: set[str] = set()

    def op(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        name: str,
        shape: Shape | None = None,
        dtype: ir.DataType | None = None,
        **attributes: Any,
    ) -> ir.Value:
        """Add one node.

        Args:
            op_type: the ONNX operator.
            inputs: the values that it reads, `None` for an optional input that is left out.
            name: the name of the node; if it is taken, a number is appended.
            shape: the Keras shape of the output, to annotate it.
            dtype: the element type of the output; that of the step if not given.
            **attributes: the attributes of the operator.

        Returns:
            The output of the node.
        """
        unique = self.unique(name)
        output = ir.val(f"{unique}/output", dtype or self.dtype, None if shape is None else self.layout.shape(shape))
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

    def cast(self, value: ir.Value, dtype: ir.DataType, name: str, shape: Shape | None = None) -> ir.Value:
        """The value in an element type; itself if it has that type."""
        if value.dtype is dtype:
            return value
        return self.op("Cast", [value], f"{name}/cast", shape, dtype, to=int(dtype))

    def to_file_layout(self, value: ir.Value, shape: Shape, name: str) -> ir.Value:
        """Transpose a value from Keras's layout to the file's, if it is an image, and annotate its Keras shape."""
        value.shape = ir.Shape(named_shape(shape))
        if not self.layout.moves(len(shape)):
            return value
        perm = list(self.layout.to_file(len(shape)))
        return self.op("Transpose", [value], f"{name}/to_nchw", shape, value.dtype, perm=perm)

    def to_keras_layout(self, value: ir.Value, shape: Shape, name: str) -> ir.Value:
        """Transpose a value of that Keras shape from the file's layout to Keras's, if it is an image."""
        if not self.layout.moves(len(shape)):
            return value
        perm = list(self.layout.to_keras(len(shape)))
        transposed = self.op("Transpose", [value], f"{name}/to_nhwc", dtype=value.dtype, perm=perm)
        transposed.shape = ir.Shape(named_shape(shape))
        return transposed

    def reduce(
        self, op_type: str, x: ir.Value, axes: Sequence[int], name: str, shape: Shape | None, *, keepdims: bool
    ) -> ir.Value:
        """Add a Reduce operator over axes of the value as it is; their place in the operator depends on the opset.

        ReduceL1 and ReduceLogSumExp are spelled out: OpenVINO 2026.4 ignores their axes before opset 18.
        """
        if op_type == "ReduceL1":
            magnitude = self.op("Abs", [x], f"{name}/abs", dtype=x.dtype)
            return self.reduce("ReduceSum", magnitude, axes, name, shape, keepdims=keepdims)
        if op_type == "ReduceLogSumExp":
            most = self.reduce("ReduceMax", x, axes, f"{name}/max", None, keepdims=True)
            below = self.op("Exp", [self.op("Sub", [x, most], f"{name}/below")], f"{name}/exp")
            total = self.reduce("ReduceSum", below, axes, f"{name}/sum", None, keepdims=True)
            value = self.op("Add", [self.op("Log", [total], f"{name}/log"), most], f"{name}/kept")
            return value if keepdims else self.reduce("ReduceMax", value, axes, name, shape, keepdims=False)
        if self.opset >= _AXES_ARE_AN_INPUT.get(op_type, 18):
            constant = self.constant(f"{name}/axes", list(axes), np.int64)
            return self.op(op_type, [x, constant], name, shape, x.dtype, keepdims=int(keepdims))
        return self.op(op_type, [x], name, shape, x.dtype, keepdims=int(keepdims), axes=list(axes))

    def ops(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        name: str,
        dtypes: Sequence[ir.DataType],
        **attributes: Any,
    ) -> tuple[ir.Value, ...]:
        """Add a node with several outputs, of these element types."""
        unique = self.unique(name)
        outputs = [ir.val(f"{unique}/output_{i}", dtype) for i, dtype in enumerate(dtypes)]
        self.tape.op_multi_out(op_type, inputs, attributes, name=unique, outputs=outputs)
        return tuple(outputs)

    def formula(self, step: Step, name: str | None = None, shape: Shape | None = None) -> "Formula":
        """A formula of several operators that computes the step, or a part of it that has another name or shape."""
        return Formula(self, step.name if name is None else name, step.output_shape if shape is None else shape)


@dataclass(frozen=True)
class Formula:
    """Adds the operators of a formula, elementwise ones on tensors of one shape.

    Args:
        emission: where they are added.
        name: the name of the operator that ends the formula, and the beginning of the names of the others.
        shape: the Keras shape of every result that isn't made of constants only; `None` if they differ.

    Example:
        >>> emission = Emission(17, Layout())
        >>> x = ir.val("x", ir.DataType.FLOAT, ["batch", 3])
        >>> f = Formula(emission, "mish", (None, 3))
        >>> f.last("Mul", x, f("Tanh", f("Softplus", x))).name
        'mish/output'
        >>> [node.name for node in emission.tape.nodes]
        ['mish/Softplus', 'mish/Tanh', 'mish']
    """

    emission: Emission
    name: str
    shape: Shape | None
    _of_constants: set[ir.Value] = field(default_factory=set, repr=False)
    """The results that are made of constants only, and have the shape of these."""

    def __call__(self, op_type: str, *operands: ir.Value | float | np.ndarray, **attributes: Any) -> ir.Value:
        """Add an operator; numbers among its operands become constants of the type of its first tensor."""
        return self._add(op_type, operands, f"{self.name}/{op_type}", attributes)

    def last(self, op_type: str, *operands: ir.Value | float | np.ndarray, **attributes: Any) -> ir.Value:
        """Add the operator that ends the formula."""
        return self._add(op_type, operands, self.name, attributes)

    def _add(
        self, op_type: str, operands: tuple[ir.Value | float | np.ndarray, ...], name: str, attributes: dict[str, Any]
    ) -> ir.Value:
        types = [operand.dtype for operand in operands if isinstance(operand, ir.Value) and operand.dtype is not None]
        dtype = next((t for t in types if t is not ir.DataType.BOOL), self.emission.dtype)
        values = [
            operand
            if isinstance(operand, ir.Value)
            else self.emission.constant(f"{self.name}/{index}", operand, dtype.numpy())
            for index, operand in enumerate(operands)
        ]
        fixed = all(value.const_value is not None or value in self._of_constants for value in values)
        shape = None if fixed else self.shape
        result = self.emission.op(op_type, values, name, shape, attributes.pop("dtype", dtype), **attributes)
        if fixed:
            self._of_constants.add(result)
        return result


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


def file_dtype(dtype: str) -> ir.DataType:
    """The element type in the file of a Keras dtype: every floating-point number is float32 there.

    Example:
        >>> file_dtype("float16"), file_dtype("uint8")
        (FLOAT, UINT8)
    """
    return ir.DataType.FLOAT if keras.backend.is_float_dtype(dtype) else input_dtype(dtype)


def input_dtype(dtype: str) -> ir.DataType:
    """The element type of an input of the file that has that Keras dtype.

    Example:
        >>> input_dtype("float16"), input_dtype("float32")
        (FLOAT16, FLOAT)
    """
    return ir.DataType.BFLOAT16 if dtype == "bfloat16" else ir.DataType.from_numpy(np.dtype(dtype))


Converter = Callable[[Emission, Step], ir.Value | tuple[ir.Value, ...]]
"""Adds the nodes of one step and returns its output value, or a tuple of values in the order of the Keras outputs."""

F = TypeVar("F", bound=Converter)

CONVERTERS: dict[type, Converter] = {}
"""The converter of each type of layer or operation; complete once `keras_qat.onnx.converters` is imported."""

_READS_INTEGERS: set[Converter] = set()


def register_converter(*layer_types: type, integers: bool = False) -> Callable[[F], F]:
    """Register the decorated function as the converter of these layer types and of subclasses that compute the same.

    A subclass that overrides anything of what its parent computes needs its own converter; without one, its `call` is
    read.

    Args:
        *layer_types: types of layers, or classes of `keras.ops` operations.
        integers: whether the converter wants integer inputs as they are, such as indices. Otherwise they are cast to
            float32 where the layer makes floating-point numbers.

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
            CONVERTERS[layer_type] = function
            register_whole(layer_type)
        if integers:
            _READS_INTEGERS.add(function)
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
    known = known_type(layer, CONVERTERS)
    if known is not None:
        return CONVERTERS[known]
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


def convert(emission: Emission, step: Step) -> tuple[ir.Value, ...]:
    """Add the nodes of one step.

    Args:
        emission: where they are added.
        step: the Keras call.

    Returns:
        The values in the order of the Keras outputs.

    Raises:
        UnsupportedModelError: If there is no converter for the layer, or it refuses the layer's configuration.
    """
    converter = find_converter(step.layer, step.path, step.unread)
    emission.dtype = step.dtype
    if step.dtype is ir.DataType.FLOAT and converter not in _READS_INTEGERS:
        inputs = (
            emission.cast(x, step.dtype, step.name, s) for x, s in zip(step.inputs, step.input_shapes, strict=True)
        )
        step = replace(step, inputs=tuple(inputs))
    converted = converter(emission, step)
    emission.dtype = ir.DataType.FLOAT
    return converted if isinstance(converted, tuple) else (converted,)


def mark(node: ir.Node, names: Iterable[str]) -> None:
    """Record that `node` also stands for these Keras nodes.

    Example:
        >>> conv = ir.node("Conv", [])
        >>> mark(conv, ["conv"])
        >>> mark(conv, ["batch_norm", "conv"])
        >>> keras_nodes(conv)
        ('conv', 'batch_norm')
    """
    node.metadata_props[_NODES] = json.dumps(list(dict.fromkeys((*(_recorded(node) or ()), *names))))


def drop_record(node: ir.Node) -> None:
    """Remove the record of `mark` if the name of `node` says the same.

    Example:
        >>> relu = ir.node("Relu", [], name="conv/relu")
        >>> mark(relu, ["conv"])
        >>> drop_record(relu)
        >>> dict(relu.metadata_props), keras_nodes(relu)
        ({}, ('conv',))
    """
    if _recorded(node) == _named(node):
        del node.metadata_props[_NODES]


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
    """The names of the Keras nodes that `node` stands for: those recorded, or else the start of its own name.

    Example:
        >>> keras_nodes(ir.node("Relu", [], name="conv/relu")), keras_nodes(ir.node("Relu", []))
        (('conv',), ())
    """
    recorded = _recorded(node)
    return _named(node) if recorded is None else recorded


def _recorded(node: ir.Node) -> tuple[str, ...] | None:
    """What `mark` recorded; `None` if nothing is recorded."""
    if _NODES not in node.metadata_props:
        return None
    try:
        names = parse_json(node.metadata_props[_NODES], _NODES)
    except UserError:
        return ()
    return tuple(str(name) for name in names) if isinstance(names, list) else ()


def _named(node: ir.Node) -> tuple[str, ...]:
    """The Keras node whose name is the start of a node's name, up to the first slash."""
    name = (node.name or "").partition("/")[0]
    return (name,) if name and not is_helper(node) else ()
