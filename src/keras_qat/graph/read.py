"""Functional model → its calls, flat: nested models and composite layers are read through.

A call of a nested model becomes the calls inside it, once for each time the model is called, so a tensor here is not a
Keras tensor (the same one stands for every call of the model) but a `Value`.

The order in which a model's calls are read: depth first from the outputs, arguments from the left, inputs first.

Keras's own order goes by the distance from the output, which a FakeQuantize layer on one branch changes. Here a layer
put on an edge changes nothing for the others, so the second call of a shared layer stays the second (`shared#2`), in
the float model, in the quantized one and in its file. For the same reason the walk is over the flat calls: a model
inside another is flat once it is quantized.

Keras model → `Trace`: the frozen graph, and for each node the Keras call that it stands for.

Nested Functional and Sequential models are read through, so the graph is flat; a composite layer is read as the small
model it stands for (`flatten`). A model whose forward pass is Python code (a subclass with its own `call`) has no graph
to read and is refused.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import keras

from keras_qat.errors import UnsupportedModelError
from keras_qat.graph.composites import find_expansion
from keras_qat.graph.facts import Graph, Node
from keras_qat.graph.kinds import activation_name, kind_of
from keras_qat.types import OpKind


@dataclass(frozen=True, eq=False)
class FlatCall:
    """One call of an operation that is no model.

    Args:
        operation: the layer (or `keras.ops` operation); a model's input is the call of its InputLayer.
        args: positional arguments, with a `Value` for each tensor.
        kwargs: keyword arguments, likewise.
        inputs: the tensors among them, in the order in which Keras lists them.
        output_shapes: the shape of each output in the Keras layout, `None` for the batch axis.
        prefix: names of the models around the call, each with a `_` after it.
    """

    operation: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    inputs: tuple["Value", ...]
    output_shapes: tuple[tuple[int | None, ...], ...]
    prefix: str


@dataclass(frozen=True)
class Value:
    """One output of a call.

    Args:
        call: what makes it.
        index: which of its outputs.
    """

    call: FlatCall
    index: int


Scope = dict[int, Value]
"""The value that each Keras tensor, by `id`, has in one call of a model."""


def flatten(model: Any) -> Scope:
    """Read a Functional or Sequential model.

    Args:
        model: a built `keras.Model`. It is not changed.

    Returns:
        The value of each Keras tensor of the model.

    Raises:
        UnsupportedModelError: the model, or one inside it, is subclassed, or a Sequential that was never built.
    """
    functional = functional_of(model)
    scope = {
        id(tensor): Value(FlatCall(tensor._keras_history.operation, (), {}, (), (tuple(tensor.shape),), ""), 0)  # noqa: SLF001
        for tensor in functional.inputs
    }
    _Flattener().read(functional, scope, prefix="")
    return scope


def functional_of(model: Any) -> Any:
    """The Functional model behind `model`; raises as `flatten` does."""
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


def _given(node: Any, inner: Any) -> list[Any]:
    """What a call of a model gives for each of `inner.inputs`: in a dictionary by key, or by the name of the input."""
    arguments = (*node.arguments.args, *node.arguments.kwargs.values())
    wanted = inner._inputs_struct  # noqa: SLF001
    if not isinstance(arguments[0], dict):
        return list(node.arguments.keras_tensors)
    if isinstance(wanted, dict):
        return list(keras.tree.flatten({key: arguments[0][key] for key in wanted}))
    return [arguments[0][tensor.name] for tensor in inner.inputs]


class _Flattener:
    """Walks a model and the models inside it; remembers the model that stands for a composite layer."""

    def __init__(self) -> None:
        self._expanded: dict[int, Any] = {}

    def read(self, functional: Any, scope: Scope, prefix: str) -> None:
        """Complete `scope`, which holds the values of the model's inputs."""
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
            call = FlatCall(operation, args, kwargs, inputs, tuple(tuple(t.shape) for t in node.outputs), prefix)
            scope.update({id(tensor): Value(call, i) for i, tensor in enumerate(node.outputs)})

    def _read_nested(self, model: Any, node: Any, scope: Scope, prefix: str) -> None:
        inner = functional_of(model)
        inside = {id(t): scope[id(o)] for t, o in zip(inner.inputs, _given(node, inner), strict=True)}
        self.read(inner, inside, prefix=f"{prefix}{model.name}_")
        scope.update({id(made): inside[id(t)] for made, t in zip(node.outputs, inner.outputs, strict=True)})

    def _expand(self, operation: Any, tensors: list[Any]) -> Any:
        """The model that a composite layer stands for, one for all its calls; `None` for any other layer."""
        expand = find_expansion(operation)
        if expand is None:
            return None
        if id(operation) not in self._expanded:
            self._expanded[id(operation)] = expand(operation, [tuple(t.shape) for t in tensors])
        return self._expanded[id(operation)]


def calls_in_order(values: Iterable[Value]) -> Iterator[FlatCall]:
    """The calls that make `values` and all that they need, each once, those that make a call's inputs before it.

    Args:
        values: the model's inputs first, which puts them first in the order, then its outputs.

    Example:
        >>> import keras
        >>> from keras_qat.graph.read import flatten
        >>> x = keras.Input((4,), name="x")
        >>> shared = keras.layers.Dense(4)
        >>> model = keras.Model(x, keras.layers.Add()([shared(keras.layers.ReLU(name="relu")(x)), shared(x)]))
        >>> scope = flatten(model)
        >>> [type(call.operation).__name__ for call in calls_in_order([scope[id(model.outputs[0])]])]
        ['InputLayer', 'ReLU', 'Dense', 'Dense', 'Add']
    """
    seen: set[FlatCall] = set()
    # A stack of its own: recursion would end at networks a thousand layers deep.
    stack = [(value.call, False) for value in reversed(tuple(values))]
    while stack:
        call, visited = stack.pop()
        if visited:
            yield call
        elif call not in seen:
            seen.add(call)
            stack.append((call, True))
            stack.extend((value.call, False) for value in reversed(call.inputs))


@dataclass(frozen=True)
class TensorRef:
    """Stands in the arguments of a `Call` where a tensor was passed.

    Args:
        name: the tensor's name in the graph.
    """

    name: str


@dataclass(frozen=True)
class Call:
    """How a node calls Keras.

    Args:
        operation: the layer (or `keras.ops` operation).
        args: its positional arguments, with a `TensorRef` for each tensor.
        kwargs: its keyword arguments, likewise.
        output_shapes: the shape of each output in the Keras layout, `None` for the batch axis.
    """

    operation: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    output_shapes: tuple[tuple[int | None, ...], ...]


@dataclass(frozen=True)
class Trace:
    """A model as read: facts for the stages that decide, calls for the stages that apply.

    Args:
        name: the model's name.
        graph: the facts.
        calls: the Keras call of each node, by node name.
        inputs: the model's input structure with a `TensorRef` at each leaf.
        outputs: its output structure, likewise.
    """

    name: str
    graph: Graph
    calls: Mapping[str, Call]
    inputs: Any
    outputs: Any

    def shape(self, tensor: str) -> tuple[int | None, ...]:
        """The shape of a tensor in the Keras layout."""
        node = self.graph.producer(tensor)
        return self.calls[node.name].output_shapes[node.outputs.index(tensor)]


def trace(model: Any) -> Trace:
    """Read a Functional or Sequential model.

    Args:
        model: a built `keras.Model`. It is not changed.

    Raises:
        UnsupportedModelError: the model is subclassed, or a Sequential that was never built.

    Example:
        >>> inputs = keras.Input((8, 8, 3), name="image")
        >>> model = keras.Model(inputs, keras.layers.ReLU(name="relu")(inputs))
        >>> [node.name for node in trace(model).graph.nodes]
        ['image', 'relu']
    """
    functional, scope = functional_of(model), flatten(model)
    ends = [scope[id(tensor)] for tensor in (*functional.inputs, *functional.outputs)]
    namer = _Namer()
    for call in calls_in_order(ends):
        namer.add(call)

    def refer(tensor: Any) -> TensorRef:
        return TensorRef(namer.tensors[scope[id(tensor)]])

    return Trace(
        name=model.name,
        graph=Graph(tuple(namer.nodes), tuple(refer(tensor).name for tensor in functional.outputs)),
        calls=dict(namer.calls),
        inputs=keras.tree.map_structure(refer, functional.input),
        outputs=keras.tree.map_structure(refer, functional.output),
    )


class _Namer:
    """Names calls and tensors in the order in which it is given them."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.calls: dict[str, Call] = {}
        self.tensors: dict[Value, str] = {}
        self._layer_names: dict[int, str] = {}

    def add(self, call: FlatCall) -> None:
        operation, shapes = call.operation, call.output_shapes
        kind = kind_of(operation, len(call.inputs))
        layer = self._layer_name(operation, call.prefix)
        name, number = layer, 1
        while name in self.calls:
            number += 1
            name = f"{layer}#{number}"
        outputs = tuple(name if i == 0 else f"{name}:{i}" for i in range(len(shapes)))
        args, kwargs = keras.tree.map_structure(self._refer, (call.args, dict(call.kwargs)))
        inputs = tuple(self.tensors[value] for value in call.inputs)
        inner = None if kind is OpKind.RELU else getattr(operation, "activation", None)
        self.nodes.append(Node(name, kind, layer, inputs, outputs, activation_name(inner), type(operation)))
        self.calls[name] = Call(operation, args, kwargs, shapes)
        self.tensors.update({Value(call, i): output for i, output in enumerate(outputs)})

    def _refer(self, argument: Any) -> Any:
        return TensorRef(self.tensors[argument]) if isinstance(argument, Value) else argument

    def _layer_name(self, operation: Any, prefix: str) -> str:
        """The layer's own name; with the nested model's name before it where two layers share one."""
        if id(operation) not in self._layer_names:
            taken = set(self._layer_names.values())
            name = operation.name if operation.name not in taken else f"{prefix}{operation.name}"
            number = 1
            while name in taken:
                number += 1
                name = f"{prefix}{operation.name}_{number}"
            self._layer_names[id(operation)] = name
        return self._layer_names[id(operation)]
