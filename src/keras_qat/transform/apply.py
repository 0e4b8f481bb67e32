"""(model, placement, ranges) → a new Keras model that simulates the quantized engine."""

from collections.abc import Mapping
from typing import Any

import keras

from keras_qat.errors import UserError
from keras_qat.graph import Edge, Graph, trace
from keras_qat.layers import FakeQuantize, quantized_layer
from keras_qat.placement import require_ranges
from keras_qat.transform.replay import copy_layer, rebuild
from keras_qat.types import Placement, RangeMode, TensorRange

SUFFIX = "_quantize"
"""A tensor's FakeQuantize layer is named after the tensor with this behind it."""


def apply_placement(
    model: Any,
    placement: Placement,
    ranges: Mapping[str, TensorRange],
    *,
    range_mode: RangeMode = "fixed",
) -> keras.Model:
    """Insert FakeQuantize layers on the planned edges and quantize the planned weights.

    Args:
        model: the float model that the placement was planned for. It is not touched.
        placement: from `plan`.
        ranges: the calibrated range of each observed tensor, from `calibrate`.
        range_mode: what training by `compile` and `fit` of your own does to the ranges; `fine_tune` asks its recipe.

    Returns:
        A new model with the same inputs, outputs, layer names and weights. It trains, saves and loads like any other.

    Raises:
        UserError: a range is missing, or the placement was planned for another model.
    """
    traced = trace(model)
    _check(placement, ranges, traced.graph)
    fakes = {
        t.tensor: FakeQuantize(t.spec, ranges[t.range_of].amax, range_mode, name=fake_quantize_name(t.tensor))
        for t in placement.tensors
    }
    weight_specs = {w.layer: w.spec for w in placement.weights}
    quantized = placement.quantized_edges
    made: dict[str, Any] = {}

    def new_layer(name: str, layer: Any) -> Any:
        spec = weight_specs.get(name)
        return copy_layer(name, layer) if spec is None else quantized_layer(layer, spec, name)

    def on_edge(edge: Edge, tensor: Any) -> Any:
        if (edge.tensor, edge.consumer, edge.index) not in quantized:
            return tensor
        if edge.tensor not in made:
            made[edge.tensor] = fakes[edge.tensor](tensor)
        return made[edge.tensor]

    return rebuild(traced, new_layer, on_edge)


def fake_quantize_name(tensor: str) -> str:
    """The name of a tensor's FakeQuantize layer; TensorFlow takes neither ":" nor "#" in the name of a scope.

    Example:
        >>> fake_quantize_name("conv#2")
        'conv.2_quantize'
    """
    return scope_name(tensor) + SUFFIX


def scope_name(name: str) -> str:
    """A node's or tensor's name as TensorFlow takes it for a scope."""
    return name.replace(":", "_").replace("#", ".")


def _check(placement: Placement, ranges: Mapping[str, TensorRange], graph: Graph) -> None:
    require_ranges(placement, ranges)
    planned = {Edge(e.tensor, e.consumer, e.index) for e in placement.edges}
    different = sorted(planned.symmetric_difference(graph.edges), key=lambda edge: edge.tensor)
    if different:
        tensor, consumer = different[0].tensor, different[0].consumer
        raise UserError(
            f"The placement was planned for another model. Received: the edge {tensor!r} → {consumer!r}, which one of "
            "them has and the other lacks. Plan it from this model: `plan(trace(model).graph, target)`."
        )
