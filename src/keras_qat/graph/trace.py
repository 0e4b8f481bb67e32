"""Keras model → `Trace`: the frozen graph, and for each node the Keras call that it stands for.

Nested Functional and Sequential models are read through, so the graph is flat; a composite layer is read as the small
model it stands for (`flatten`). A model whose forward pass is Python code (a subclass with its own `call`) has no graph
to read and is refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras

from keras_qat.graph.facts import Graph, Node
from keras_qat.graph.flatten import FlatCall, Value, flatten, functional_of
from keras_qat.graph.kinds import activation_name, kind_of
from keras_qat.graph.order import calls_in_order
from keras_qat.types import OpKind


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
