"""Rebuilding a traced model with other layers or edges, and copying its layers."""

from collections.abc import Callable, Mapping
from copy import copy
from typing import Any

import keras

from keras_qat.errors import UnsupportedModelError
from keras_qat.graph import Edge, TensorRef, Trace, copy_by_settings, layer_settings, plain_type
from keras_qat.text import one_line
from keras_qat.types import OpKind

LayerFunction = Callable[[str, Any], Any]
"""(layer name, traced layer or operation) → the layer to call instead."""

EdgeFunction = Callable[[Edge, Any], Any]
"""(edge, its tensor) → the tensor to pass to the consumer."""


def copy_layer(name: str, layer: Any) -> Any:
    """A new layer that computes the same, with the same settings, without the weights.

    Functions and regularizers among the settings are shared with the copy, not serialized: they needn't be registered.
    A subclass that computes what a registered type computes becomes a layer of that type, so that the copy needs
    neither its `__init__` nor its `get_config`.

    Args:
        name: name of the new layer.
        layer: the layer or `keras.ops` operation. It is not changed.

    Returns:
        The layer, not built yet; for an operation a copy that is not part of any model.

    Raises:
        UnsupportedModelError: If the layer can't be made from its own configuration.

    Example:
        >>> copy_layer("copy", keras.layers.Dense(2))
        <Dense name=copy, built=False>
    """
    if not isinstance(layer, keras.layers.Layer):
        operation = copy(layer)
        operation._inbound_nodes, operation._outbound_nodes = [], []  # noqa: SLF001
        operation.name = name
        return operation
    try:
        return copy_by_settings(layer, plain_type(layer), name=name)
    except Exception as error:  # whatever the class of the user raises
        raise UnsupportedModelError(
            f"The layer {layer.name!r} can't be copied, since it can't be made from its own configuration: "
            f"{one_line(error)}. Received: a {type(layer).__name__}. Give the class a `get_config` with the arguments "
            "of its `__init__`; or register neither a kind nor a converter for it, and its `call` is read instead."
        ) from error


def rebuild(
    trace: Trace, new_layer: LayerFunction = copy_layer, on_edge: EdgeFunction = lambda _, tensor: tensor
) -> keras.Model:
    """Build a new Functional model from a trace.

    Args:
        trace: the model as read. Its layers are not changed.
        new_layer: gives the layer that replaces a traced one; called once for each layer. By default a copy.
        on_edge: gives the tensor that a consumer reads; called once for each edge into a node, in topological order. By
            default the tensor of the edge.

    Returns:
        A flat model with the inputs, outputs, name and weights of the traced one.

    Example:
        >>> from keras_qat.graph import trace
        >>> image = keras.Input((4,), name="image")
        >>> model = keras.Model(image, keras.layers.Dense(2, name="dense")(image))
        >>> relu = keras.layers.ReLU(name="relu")
        >>> rebuilt = rebuild(trace(model), on_edge=lambda edge, tensor: relu(tensor))
        >>> [node.name for node in trace(rebuilt).graph.nodes]
        ['image', 'relu', 'dense']
    """
    tensors: dict[str, Any] = {}
    layers: dict[str, Any] = {}
    traced: dict[str, Any] = {}
    for node in trace.graph.nodes:
        call = trace.calls[node.name]
        if node.kind is OpKind.INPUT:
            made = _new_input(trace, node.name)
        else:
            if node.layer not in layers:
                traced[node.layer] = call.operation
                layers[node.layer] = new_layer(node.layer, call.operation)
            args, kwargs = _fill_in(call.args, call.kwargs, node.name, tensors, on_edge)
            made = layers[node.layer](*args, **kwargs)
        tensors.update(zip(node.outputs, keras.tree.flatten(made), strict=True))

    for name, layer in traced.items():
        if isinstance(layer, keras.layers.Layer):
            layers[name].set_weights(layer.get_weights())
            if hasattr(layers[name], "finalize_state"):
                # keras.layers.Normalization computes with values that it derives from its weights.
                layers[name].finalize_state()

    def resolve(ref: TensorRef) -> Any:
        return tensors[ref.name]

    return keras.Model(
        inputs=keras.tree.map_structure(resolve, trace.inputs),
        outputs=keras.tree.map_structure(resolve, trace.outputs),
        name=trace.name,
    )


def _new_input(trace: Trace, node: str) -> Any:
    layer = trace.calls[node].operation
    return keras.Input(batch_shape=layer.batch_shape, dtype=layer.dtype, name=node)


def _fill_in(
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    consumer: str,
    tensors: Mapping[str, Any],
    on_edge: EdgeFunction,
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a call with tensors in place of each `TensorRef`; edges are numbered in argument order."""
    index = -1

    def resolve(leaf: Any) -> Any:
        nonlocal index
        if not isinstance(leaf, TensorRef):
            return leaf
        index += 1
        return on_edge(Edge(leaf.name, consumer, index), tensors[leaf.name])

    filled: tuple[tuple[Any, ...], dict[str, Any]] = keras.tree.map_structure(resolve, (args, dict(kwargs)))
    return filled


class LayerCopy:
    """A copy of a layer with its weights, which it gets when its first call builds it.

    Args:
        layer: the layer to copy. It is not changed.
        name: name of the copy.
        linear: whether to leave out the layer's own activation and bias, so that the copy computes W x.
        weights_of: the layer whose weights the copy gets; `layer` if not given.

    Example:
        >>> dense = keras.layers.Dense(2, activation="relu", bias_initializer="ones", kernel_initializer="ones")
        >>> _ = dense(keras.Input((3,)))
        >>> LayerCopy(dense, "copy", linear=True)(keras.ops.array([[-1.0, 0.0, -1.0]])).numpy().tolist()
        [[-2.0, -2.0]]
    """

    def __init__(self, layer: Any, name: str, *, linear: bool = False, weights_of: Any = None) -> None:
        kind: Any = plain_type(layer)
        config = {**layer_settings(layer, kind), "name": name}
        if linear and "activation" in config:
            config["activation"] = None
        self._copy, self._linear = kind.from_config(config), linear
        self._source, self._loaded = layer if weights_of is None else weights_of, False

    def __call__(self, x: Any) -> Any:
        """The output of the copy."""
        if not self._loaded:
            self._load(tuple(x.shape))
        return self._copy(x)

    def _load(self, input_shape: tuple[int | None, ...]) -> None:
        self._loaded = True
        self._copy.build(input_shape)
        self._copy.set_weights(self._source.get_weights())
        bias = getattr(self._copy, "bias", None)
        if self._linear and bias is not None:
            bias.assign(keras.ops.zeros(bias.shape, bias.dtype))
