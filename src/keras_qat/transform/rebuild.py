"""Replay a trace as a new Keras model, with a say in every layer and every edge."""

from collections.abc import Callable, Mapping
from copy import copy
from typing import Any

import keras

from keras_qat.graph import Edge, TensorRef, Trace
from keras_qat.types import OpKind

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
