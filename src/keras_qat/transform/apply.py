"""(model, placement, ranges) → a new Keras model that simulates the integer engine."""

from collections.abc import Mapping
from typing import Any

import keras

from keras_qat.errors import UserError
from keras_qat.graph import Edge, Graph, trace
from keras_qat.layers import FakeQuantize, quantized_layer
from keras_qat.placement import require_ranges
from keras_qat.transform.replay import copy_layer, rebuild
from keras_qat.types import Placement, RangeMode, TensorRange


def apply_placement(
    model: Any,
    placement: Placement,
    ranges: Mapping[str, TensorRange],
    *,
    range_mode: RangeMode = "fixed",
) -> keras.Model:
    """Insert FakeQuantize layers on the planned edges and quantize the planned kernels.

    Args:
        model: the float model for which the placement was planned. It is not changed.
        placement: from `plan`.
        ranges: the range of each observed tensor, from `calibrate`.
        range_mode: how training by your own `compile` and `fit` updates the ranges; in `fine_tune` its recipe decides.

    Returns:
        A new model with the same inputs, outputs, layer names and weights. It trains, saves and loads like any other.

    Raises:
        UserError: If a range is missing, or the placement was planned for another model.
        ValueError: If a range is negative, infinite or NaN.

    Example:
        >>> from keras_qat.placement import plan
        >>> image = keras.Input((8, 8, 3), name="image")
        >>> model = keras.Model(image, keras.layers.Conv2D(4, 3, name="conv")(image))
        >>> ranges = {"image": TensorRange(amax=1.0, method="minmax", images=8)}
        >>> quantized = apply_placement(model, plan(trace(model).graph, "tensorrt"), ranges)
        >>> [layer.name for layer in quantized.layers]
        ['image', 'image_quantize', 'conv']
    """
    traced = trace(model)
    require_ranges(placement, ranges)
    _require_same_edges(placement, traced.graph)
    fake_quantize = {
        t.tensor: FakeQuantize(
            t.spec, ranges[t.range_of].amax, range_mode, placement.target, name=fake_quantize_name(t.tensor)
        )
        for t in placement.tensors
    }
    weight_specs = {w.layer: w.spec for w in placement.weights}
    quantized_edges = placement.quantized_edges
    quantized: dict[str, Any] = {}

    def new_layer(name: str, layer: Any) -> Any:
        spec = weight_specs.get(name)
        return copy_layer(name, layer) if spec is None else quantized_layer(layer, spec, name)

    def on_edge(edge: Edge, tensor: Any) -> Any:
        if (edge.tensor, edge.consumer, edge.index) not in quantized_edges:
            return tensor
        if edge.tensor not in quantized:
            quantized[edge.tensor] = fake_quantize[edge.tensor](tensor)
        return quantized[edge.tensor]

    return rebuild(traced, new_layer, on_edge)


def fake_quantize_name(tensor: str) -> str:
    """The name of a tensor's FakeQuantize layer.

    Args:
        tensor: name of the tensor in the graph.

    Example:
        >>> fake_quantize_name("conv#2")
        'conv.2_quantize'
    """
    return f"{scope_name(tensor)}_quantize"


def scope_name(name: str) -> str:
    """The name of a node or tensor as TensorFlow accepts it for a scope, without ":" and "#".

    Args:
        name: name of the node or tensor in the graph.

    Example:
        >>> scope_name("split#2:1")
        'split.2_1'
    """
    return name.replace(":", "_").replace("#", ".")


def _require_same_edges(placement: Placement, graph: Graph) -> None:
    planned = {Edge(e.tensor, e.consumer, e.index) for e in placement.edges}
    different = sorted(planned.symmetric_difference(graph.edges), key=lambda edge: edge.tensor)
    if different:
        tensor, consumer = different[0].tensor, different[0].consumer
        raise UserError(
            f"The placement was planned for another model. Received: the edge {tensor!r} → {consumer!r}, which one of "
            "them has and the other lacks. Plan it from this model: `plan(trace(model).graph, target)`."
        )
