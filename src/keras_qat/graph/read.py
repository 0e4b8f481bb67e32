"""Reading a Keras model: `trace` gives its frozen graph, and for each node the Keras call behind it.

`flatten.py` reads the calls, and this module orders and names them.

Nodes are in depth-first order from the outputs, arguments from left to right, inputs first. Keras's own order goes by
the distance from the output, which a FakeQuantize layer on one branch changes. In this order a layer put on an edge
changes nothing for the others, so the second call of a shared layer stays the second (`shared#2`) in the float model,
in the quantized one and in its file. For the same reason flat calls are ordered: a quantized model is flat.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras

from keras_qat.errors import UnsupportedModelError
from keras_qat.graph.calls import FlatCall, Value, calls_in_order
from keras_qat.graph.facts import Graph, Node
from keras_qat.graph.flatten import flatten
from keras_qat.graph.kinds import kind_of, last_activation
from keras_qat.graph.soundness import require_sound
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
        output_dtypes: the type of each output, such as `"float32"`; that of a model's input is the type of its images.
        path: names of the nested models and layers around the call, outermost first, and of what is called.
        unread: why a layer that nobody registered couldn't be read either; `None` for any other call.
    """

    operation: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    output_shapes: tuple[tuple[int | None, ...], ...]
    output_dtypes: tuple[str, ...] = ("float32",)
    path: tuple[str, ...] = ()
    unread: str | None = None


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


def trace(model: Any, *, only_run: bool = False) -> Trace:
    """Read a Keras model that has inputs.

    Args:
        model: a Functional or Sequential `keras.Model`, built, or a subclass of one. It is not changed.
        only_run: take a model that can be run but not quantized, since Keras has quantized it itself or weights are not
            finite. This suits a caller who only looks at the graph.

    Returns:
        The graph and the Keras calls of the model. A layer that nobody registered, such as one of your own, is replaced
        by the layers and `keras.ops` that its `call` uses; where that fails the layer is a node of kind `OTHER`, which
        `require_exportable` refuses.

    Raises:
        UnsupportedModelError: If the model has no inputs, as a subclass of `keras.Model` that is only Python code; if
            it is a Sequential that was never built; if a layer reads a mask, or the `call` of another calls it with
            `training=True`; or if `keras.Model.quantize` has changed it.
        WeightsError: If a weight is NaN or infinite.

    Example:
        >>> inputs = keras.Input((8, 8, 3), name="image")
        >>> model = keras.Model(inputs, keras.layers.ReLU(name="relu")(inputs))
        >>> [node.name for node in trace(model).graph.nodes]
        ['image', 'relu']
    """
    _require_inputs(model)
    if not only_run:
        require_sound(model)
    flat = flatten(model)
    namer = _Namer()
    for call in calls_in_order(keras.tree.flatten((flat.inputs, flat.outputs))):
        namer.add(call)

    def reference(value: Value) -> TensorRef:
        return TensorRef(namer.tensors[value])

    outputs = keras.tree.map_structure(reference, flat.outputs)
    return Trace(
        name=model.name,
        graph=Graph(tuple(namer.nodes), tuple(ref.name for ref in keras.tree.flatten(outputs))),
        calls=dict(namer.calls),
        inputs=keras.tree.map_structure(reference, flat.inputs),
        outputs=outputs,
    )


def _require_inputs(model: Any) -> None:
    if isinstance(model, keras.Sequential) or hasattr(model, "_inputs_struct"):
        return
    raise UnsupportedModelError(
        "Only models with inputs have a graph to quantize: Functional and Sequential ones. "
        f"Received: {type(model).__name__} (model {getattr(model, 'name', model)!r}), whose forward pass is "
        "Python code. Call it within the functional API: `x = keras.Input(shape); keras.Model(x, your_model(x))`."
    )


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
        leaves = keras.tree.flatten((call.args, dict(call.kwargs)))
        kind = kind_of(operation, len(call.inputs), [leaf for leaf in leaves if not isinstance(leaf, Value)])
        if not floating and kind is not OpKind.INPUT:
            kind = OpKind.OTHER  # A sum or a slice of integers is nothing that an engine quantizes.
        layer = self._layer_name(call)
        name, number = layer, 1
        while name in self.calls:
            number += 1
            name = f"{layer}#{number}"
        outputs = tuple(name if i == 0 else f"{name}:{i}" for i in range(len(shapes)))
        args, kwargs = keras.tree.map_structure(self._reference, (call.args, dict(call.kwargs)))
        inputs = tuple(self.tensors[value] for value in call.inputs)
        activation = None if kind is OpKind.RELU else last_activation(operation)
        self.nodes.append(Node(name, kind, layer, inputs, outputs, activation, type(operation), floating))
        path = (*call.path, layer)
        self.calls[name] = Call(operation, args, kwargs, shapes, call.output_dtypes, path, call.unread)
        self.tensors.update({Value(call, i): output for i, output in enumerate(outputs)})

    def _reference(self, argument: Any) -> Any:
        return TensorRef(self.tensors[argument]) if isinstance(argument, Value) else argument

    def _layer_name(self, call: FlatCall) -> str:
        """The name of the call, preceded by that of its nested model where another layer has taken the name."""
        key = id(call.operation)
        if key not in self._layer_names:
            taken = set(self._layer_names.values())
            name = call.name if call.name not in taken else f"{call.prefix}{call.name}"
            number = 1
            while name in taken:
                number += 1
                name = f"{call.prefix}{call.name}_{number}"
            self._layer_names[key] = name
        return self._layer_names[key]
