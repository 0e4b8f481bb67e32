"""A copy of a layer with its weights, for a model beside the one that the layer belongs to.

Replay a trace as a new Keras model, with a say in every layer and every edge.
"""

from collections.abc import Callable, Mapping
from copy import copy
from typing import Any

import keras
from keras import ops

from keras_qat.graph import Edge, TensorRef, Trace
from keras_qat.types import OpKind


class LayerCopy:
    """A copy of a layer with its weights, which are there once it is built by its first call.

    Args:
        layer: what to copy. It is not changed.
        name: of the copy.
        linear: without the layer's own activation and bias: W x alone.
        weights_of: the layer whose weights it gets; `layer` itself if not given.

    Example:
        >>> import keras
        >>> dense = keras.layers.Dense(2, activation="relu", bias_initializer="ones", kernel_initializer="ones")
        >>> _ = dense(keras.Input((3,)))
        >>> LayerCopy(dense, "copy", linear=True)(ops.array([[-1.0, 0.0, -1.0]])).numpy().tolist()
        [[-2.0, -2.0]]
    """

    def __init__(self, layer: Any, name: str, *, linear: bool = False, weights_of: Any = None) -> None:
        config = {**layer.get_config(), "name": name}
        if linear and "activation" in config:
            config["activation"] = None
        self._copy, self._linear = type(layer).from_config(config), linear
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
            bias.assign(ops.zeros(bias.shape, bias.dtype))


LayerFunction = Callable[[str, Any], Any]
"""(layer name, the traced layer) → the layer to call instead."""

EdgeFunction = Callable[[Edge, Any], Any]
"""(edge, the tensor that flows) → the tensor to pass on."""


def rebuild(trace: Trace, new_layer: LayerFunction, on_edge: EdgeFunction) -> keras.Model:
    """Build a new Functional model along the trace.

    Args:
        trace: the model as read; its layers are not touched.
        new_layer: gives the layer that replaces each traced one; asked once for each layer.
        on_edge: gives the tensor that each consumer reads.

    Returns:
        A flat model with the inputs, outputs, name and weights of the traced one.
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
                # keras.layers.Normalization computes with what it derives from its weights.
                layers[name].finalize_state()

    def resolve(ref: TensorRef) -> Any:
        return tensors[ref.name]

    return keras.Model(
        inputs=keras.tree.map_structure(resolve, trace.inputs),
        outputs=keras.tree.map_structure(resolve, trace.outputs),
        name=trace.name,
    )


def copy_layer(name: str, layer: Any) -> Any:
    """A fresh layer of the same type and configuration, or a copy of an operation that no graph holds yet."""
    if not isinstance(layer, keras.layers.Layer):
        twin = copy(layer)
        twin._inbound_nodes, twin._outbound_nodes = [], []  # noqa: SLF001
        return twin
    return type(layer).from_config({**layer.get_config(), "name": name})


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
    """The arguments of one call, each `TensorRef` replaced; edges are numbered in the order of the arguments."""
    index = -1

    def resolve(leaf: Any) -> Any:
        nonlocal index
        if not isinstance(leaf, TensorRef):
            return leaf
        index += 1
        return on_edge(Edge(leaf.name, consumer, index), tensors[leaf.name])

    filled: tuple[tuple[Any, ...], dict[str, Any]] = keras.tree.map_structure(resolve, (args, dict(kwargs)))
    return filled
