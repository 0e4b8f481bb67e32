"""Keras model → `Trace`: the frozen graph, and for each node the Keras call that it stands for.

Nested Functional and Sequential models are read through, so the graph is flat; a composite layer is read as the small
model it stands for. A model whose forward pass is Python code (a subclass with its own `call`) has no graph to read and
is refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras

from keras_qat.errors import UnsupportedModelError
from keras_qat.graph.composites import find_expansion
from keras_qat.graph.facts import Graph, Node
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
    reader = _Reader()
    functional = _functional(model)
    names: dict[int, str] = {}
    for tensor in functional.inputs:
        reader.add_input(tensor, names)
    reader.read(functional, names, prefix="")

    def refer(tensor: Any) -> TensorRef:
        return TensorRef(names[id(tensor)])

    return Trace(
        name=model.name,
        graph=Graph(tuple(reader.nodes), tuple(names[id(t)] for t in functional.outputs)),
        calls=dict(reader.calls),
        inputs=keras.tree.map_structure(refer, functional.input),
        outputs=keras.tree.map_structure(refer, functional.output),
    )


def _functional(model: Any) -> Any:
    """The Functional model behind `model`."""
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


class _Reader:
    """Collects nodes and calls while it walks a model and the models inside it."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.calls: dict[str, Call] = {}
        self._layer_names: dict[int, str] = {}
        self._expanded: dict[int, Any] = {}

    def add_input(self, tensor: Any, names: dict[int, str]) -> None:
        layer = tensor._keras_history.operation  # noqa: SLF001
        self._add(layer, (), {}, (), [tensor], names, prefix="")

    def read(self, functional: Any, names: dict[int, str], prefix: str) -> None:
        """Add the nodes of `functional`; `names` maps the id of each Keras tensor to its name and grows."""
        for node in calls_in_order(functional):
            if node.is_input or all(id(t) in names for t in node.outputs):
                continue
            operation, tensors = node.operation, node.arguments.keras_tensors
            nested = operation if isinstance(operation, keras.Model) else self._expand(operation, tensors)
            if nested is not None:
                self._read_nested(nested, node, names, prefix)
                continue
            args, kwargs = node.arguments.convert(
                lambda x: TensorRef(names[id(x)]) if isinstance(x, keras.KerasTensor) else x
            )
            inputs = tuple(names[id(t)] for t in tensors)
            self._add(operation, args, kwargs, inputs, node.outputs, names, prefix)

    def _expand(self, operation: Any, tensors: list[Any]) -> Any:
        """The model that a composite layer stands for, one for all its calls; `None` for any other layer."""
        expand = find_expansion(operation)
        if expand is None:
            return None
        if id(operation) not in self._expanded:
            self._expanded[id(operation)] = expand(operation, [tuple(t.shape) for t in tensors])
        return self._expanded[id(operation)]

    def _read_nested(self, model: Any, node: Any, names: dict[int, str], prefix: str) -> None:
        inner = _functional(model)
        outer = node.arguments.keras_tensors
        inner_names = {id(t): names[id(o)] for t, o in zip(inner.inputs, outer, strict=True)}
        self.read(inner, inner_names, prefix=f"{prefix}{model.name}_")
        for made, tensor in zip(node.outputs, inner.outputs, strict=True):
            names[id(made)] = inner_names[id(tensor)]

    def _add(
        self,
        operation: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        inputs: tuple[str, ...],
        made: list[Any],
        names: dict[int, str],
        prefix: str,
    ) -> None:
        kind = kind_of(operation, len(inputs))
        layer = self._layer_name(operation, prefix)
        name, call_number = layer, 1
        while name in self.calls:
            call_number += 1
            name = f"{layer}#{call_number}"
        outputs = tuple(name if i == 0 else f"{name}:{i}" for i in range(len(made)))
        names.update({id(t): output for t, output in zip(made, outputs, strict=True)})
        inner = None if kind is OpKind.RELU else getattr(operation, "activation", None)
        self.nodes.append(Node(name, kind, layer, inputs, outputs, activation_name(inner), type(operation)))
        self.calls[name] = Call(operation, args, kwargs, tuple(tuple(t.shape) for t in made))

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
