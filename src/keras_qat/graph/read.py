"""Reading a Keras model: `trace` gives its frozen graph, and for each node the Keras call behind it.

Nested Functional and Sequential models are flattened: a call of a nested model becomes the calls inside it, once for
each time the model is called. Composite layers are replaced by the small models they stand for (`composites.py`). A
subclassed model, whose forward pass is Python code, has no graph to read and is refused.

Since one Keras tensor of a nested model stands for every call of that model, a tensor is represented by a `Value` here:
one output of one flat call.

Nodes are in depth-first order from the outputs, arguments from left to right, inputs first. Keras's own order goes by
the distance from the output, which a FakeQuantize layer on one branch changes. In this order a layer put on an edge
changes nothing for the others, so the second call of a shared layer stays the second (`shared#2`) in the float model,
in the quantized one and in its file. For the same reason flat calls are ordered: a quantized model is flat.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import keras

from keras_qat.errors import UnsupportedModelError
from keras_qat.graph.facts import Graph, Node
from keras_qat.graph.kinds import activation_name, find_expansion, kind_of
from keras_qat.types import OpKind


@dataclass(frozen=True)
class TensorRef:
    """Stands for a tensor in the arguments of a `Call`.

    Args:
        name: the tensor's name in the graph.
    """

    name: str


@dataclass(frozen=True)
class Call:
    """The Keras call of a node.

    Args:
        operation: the layer (or `keras.ops` operation) that is called.
        args: its positional arguments, with a `TensorRef` for each tensor.
        kwargs: its keyword arguments, likewise.
        output_shapes: the shape of each output in the Keras layout, `None` for the batch axis.
        output_dtypes: the dtype of each output, such as "float32".
    """

    operation: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    output_shapes: tuple[tuple[int | None, ...], ...]
    output_dtypes: tuple[str, ...]


@dataclass(frozen=True)
class Trace:
    """A Keras model as read: its graph for the stages that decide, its calls for the stages that rebuild it.

    Args:
        name: the model's name.
        graph: the nodes and tensors.
        calls: the Keras call of each node, by node name.
        inputs: the structure of the model's inputs, with a `TensorRef` for each tensor.
        outputs: the structure of its outputs, likewise.
    """

    name: str
    graph: Graph
    calls: Mapping[str, Call]
    inputs: Any
    outputs: Any

    def shape(self, tensor: str) -> tuple[int | None, ...]:
        """The shape of a tensor in the Keras layout, `None` for axes of unknown size such as the batch axis."""
        node = self.graph.producer(tensor)
        return self.calls[node.name].output_shapes[node.outputs.index(tensor)]

    def dtype(self, tensor: str) -> str:
        """The dtype of a tensor, such as "float32"."""
        node = self.graph.producer(tensor)
        return self.calls[node.name].output_dtypes[node.outputs.index(tensor)]


def trace(model: Any) -> Trace:
    """Read a Functional or Sequential model.

    Args:
        model: a built `keras.Model`. It is not changed.

    Returns:
        The graph and the Keras calls of the model.

    Raises:
        UnsupportedModelError: If the model, or one nested in it, is subclassed, or is a Sequential that was never
            built.

    Example:
        >>> inputs = keras.Input((8, 8, 3), name="image")
        >>> model = keras.Model(inputs, keras.layers.ReLU(name="relu")(inputs))
        >>> [node.name for node in trace(model).graph.nodes]
        ['image', 'relu']
    """
    functional = _functional(model)
    scope = flatten(functional)
    namer = _Namer()
    for call in calls_in_order(scope[id(tensor)] for tensor in (*functional.inputs, *functional.outputs)):
        namer.add(call)

    def reference(tensor: Any) -> TensorRef:
        return TensorRef(namer.tensors[scope[id(tensor)]])

    return Trace(
        name=model.name,
        graph=Graph(tuple(namer.nodes), tuple(reference(tensor).name for tensor in functional.outputs)),
        calls=dict(namer.calls),
        inputs=keras.tree.map_structure(reference, functional.input),
        outputs=keras.tree.map_structure(reference, functional.output),
    )


def _functional(model: Any) -> Any:
    """The Functional model behind `model`; raises as `trace` does."""
    if isinstance(model, keras.Sequential):
        if not model.built or model._functional is None:  # noqa: SLF001
            raise UnsupportedModelError(
                f"The Sequential model {model.name!r} has no input shape yet. Received: an unbuilt model. "
                "Give it a `keras.Input` as its first layer, or call `model.build(input_shape)`."
            )
        return model._functional  # noqa: SLF001
    if not hasattr(model, "_nodes_by_depth"):
        raise UnsupportedModelError(
            "Only Functional and Sequential models have a graph to quantize. "
            f"Received: {type(model).__name__} (model {getattr(model, 'name', model)!r}), whose forward pass is "
            "Python code. Rebuild it with the functional API: `x = keras.Input(shape); "
            "keras.Model(x, your_layers(x))`."
        )
    return model


def input_names(model: Any) -> tuple[str, ...]:
    """The names of a model's inputs, in the order of `model.inputs`.

    These are the names of the input layers, as in the graph. The Keras tensor of an input may have a generated name of
    its own instead, such as "keras_tensor_7".

    Args:
        model: a Functional or Sequential model, built.

    Example:
        >>> image = keras.Input((4,), name="image")
        >>> input_names(keras.Model(image, keras.layers.ReLU()(image)))
        ('image',)
    """
    return tuple(tensor._keras_history.operation.name for tensor in model.inputs)  # noqa: SLF001


@dataclass(frozen=True, eq=False)
class FlatCall:
    """One call of a layer or operation, never of a model.

    Args:
        operation: the layer (or `keras.ops` operation); for an input of the model its InputLayer.
        args: its positional arguments, with a `Value` for each tensor.
        kwargs: its keyword arguments, likewise.
        inputs: the tensors among the arguments, in the order in which Keras lists them.
        output_shapes: the shape of each output in the Keras layout, `None` for the batch axis.
        output_dtypes: the dtype of each output, such as "float32".
        prefix: names of the models around the call, outermost first, each followed by `_`.
    """

    operation: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    inputs: tuple["Value", ...]
    output_shapes: tuple[tuple[int | None, ...], ...]
    output_dtypes: tuple[str, ...]
    prefix: str


@dataclass(frozen=True)
class Value:
    """One output of a call.

    Args:
        call: the call that makes it.
        index: which output of the call, counted from 0.
    """

    call: FlatCall
    index: int


Scope = dict[int, Value]
"""The values of a model's Keras tensors in one call of the model, by the `id` of the Keras tensor."""


def flatten(functional: Any) -> Scope:
    """Read the calls of a Functional model and of the models nested in it.

    Args:
        functional: the model. It is not changed.

    Returns:
        The value of each Keras tensor of the model.

    Raises:
        UnsupportedModelError: If a nested model is subclassed, or is a Sequential that was never built.
    """
    scope = {
        id(tensor): Value(
            FlatCall(tensor._keras_history.operation, (), {}, (), (tuple(tensor.shape),), (tensor.dtype,), ""),  # noqa: SLF001
            0,
        )
        for tensor in functional.inputs
    }
    _Flattener().read(functional, scope, prefix="")
    return scope


class _Flattener:
    """Reads the calls of a model; each composite layer is expanded once, for all its calls."""

    def __init__(self) -> None:
        self._expanded: dict[int, Any] = {}

    def read(self, functional: Any, scope: Scope, prefix: str) -> None:
        """Add the values of all tensors of a model to `scope`, which holds those of its inputs."""
        by_depth = functional._nodes_by_depth  # noqa: SLF001
        for node in (node for depth in sorted(by_depth, reverse=True) for node in by_depth[depth]):
            if node.is_input or all(id(tensor) in scope for tensor in node.outputs):
                continue
            operation, tensors = node.operation, node.arguments.keras_tensors
            nested = operation if isinstance(operation, keras.Model) else self._expand(operation, tensors)
            if nested is not None:
                self._read_nested(nested, node, scope, prefix)
                continue
            args, kwargs = node.arguments.convert(lambda x: scope[id(x)] if isinstance(x, keras.KerasTensor) else x)
            inputs = tuple(scope[id(tensor)] for tensor in tensors)
            shapes, dtypes = tuple(tuple(t.shape) for t in node.outputs), tuple(t.dtype for t in node.outputs)
            call = FlatCall(operation, args, kwargs, inputs, shapes, dtypes, prefix)
            scope.update({id(tensor): Value(call, i) for i, tensor in enumerate(node.outputs)})

    def _read_nested(self, model: Any, node: Any, scope: Scope, prefix: str) -> None:
        inner = _functional(model)
        inner_scope = {id(t): scope[id(given)] for t, given in zip(inner.inputs, _given(node, inner), strict=True)}
        self.read(inner, inner_scope, prefix=f"{prefix}{model.name}_")
        scope.update({id(t): inner_scope[id(made)] for t, made in zip(node.outputs, inner.outputs, strict=True)})

    def _expand(self, operation: Any, tensors: list[Any]) -> Any:
        """The model that a composite layer stands for; `None` for any other layer."""
        expand = find_expansion(operation)
        if expand is None:
            return None
        if id(operation) not in self._expanded:
            self._expanded[id(operation)] = expand(operation, [tuple(t.shape) for t in tensors])
        return self._expanded[id(operation)]


def _given(node: Any, inner: Any) -> list[Any]:
    """The tensors that a call of a model passes for `inner.inputs`; a dictionary goes by key or by input name."""
    arguments = (*node.arguments.args, *node.arguments.kwargs.values())
    wanted = inner._inputs_struct  # noqa: SLF001
    if not isinstance(arguments[0], dict):
        return list(node.arguments.keras_tensors)
    if isinstance(wanted, dict):
        return list(keras.tree.flatten({key: arguments[0][key] for key in wanted}))
    return [arguments[0][tensor.name] for tensor in inner.inputs]


def calls_in_order(values: Iterable[Value]) -> Iterator[FlatCall]:
    """The calls that make `values` and everything they need, each once, depth first.

    Args:
        values: the model's inputs, which puts them first in the order, then its outputs.

    Yields:
        Each call, after the calls that make its inputs.

    Example:
        >>> x = keras.Input((4,), name="x")
        >>> shared = keras.layers.Dense(4)
        >>> model = keras.Model(x, keras.layers.Add()([shared(keras.layers.ReLU(name="relu")(x)), shared(x)]))
        >>> scope = flatten(model)
        >>> [type(call.operation).__name__ for call in calls_in_order([scope[id(model.outputs[0])]])]
        ['InputLayer', 'ReLU', 'Dense', 'Dense', 'Add']
    """
    seen: set[FlatCall] = set()
    # An explicit stack: recursion would fail on networks a thousand layers deep.
    stack = [(value.call, False) for value in reversed(tuple(values))]
    while stack:
        call, visited = stack.pop()
        if visited:
            yield call
        elif call not in seen:
            seen.add(call)
            stack.append((call, True))
            stack.extend((value.call, False) for value in reversed(call.inputs))


class _Namer:
    """Names calls and their tensors, in the order in which they are added."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.calls: dict[str, Call] = {}
        self.tensors: dict[Value, str] = {}
        self._layer_names: dict[int, str] = {}

    def add(self, call: FlatCall) -> None:
        operation, shapes = call.operation, call.output_shapes
        floating = all(keras.backend.is_float_dtype(dtype) for dtype in call.output_dtypes)
        kind = kind_of(operation, len(call.inputs))
        if not floating and kind is not OpKind.INPUT:
            kind = OpKind.OTHER  # A sum or a slice of integers is nothing that an engine quantizes.
        layer = self._layer_name(operation, call.prefix)
        name, number = layer, 1
        while name in self.calls:
            number += 1
            name = f"{layer}#{number}"
        outputs = tuple(name if i == 0 else f"{name}:{i}" for i in range(len(shapes)))
        args, kwargs = keras.tree.map_structure(self._reference, (call.args, dict(call.kwargs)))
        inputs = tuple(self.tensors[value] for value in call.inputs)
        function = None if kind is OpKind.RELU else getattr(operation, "activation", None)
        activation = activation_name(function)
        self.nodes.append(Node(name, kind, layer, inputs, outputs, activation, type(operation), floating))
        self.calls[name] = Call(operation, args, kwargs, shapes, call.output_dtypes)
        self.tensors.update({Value(call, i): output for i, output in enumerate(outputs)})

    def _reference(self, argument: Any) -> Any:
        return TensorRef(self.tensors[argument]) if isinstance(argument, Value) else argument

    def _layer_name(self, operation: Any, prefix: str) -> str:
        """The layer's own name, preceded by that of its nested model where another layer has taken the name."""
        if id(operation) not in self._layer_names:
            taken = set(self._layer_names.values())
            name = operation.name if operation.name not in taken else f"{prefix}{operation.name}"
            number = 1
            while name in taken:
                number += 1
                name = f"{prefix}{operation.name}_{number}"
            self._layer_names[id(operation)] = name
        return self._layer_names[id(operation)]
