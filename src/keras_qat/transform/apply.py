"""(model, placement, ranges) → a new Keras model that simulates the quantized engine."""

from collections.abc import Mapping
from typing import Any

import keras

from keras_qat.errors import UserError
from keras_qat.graph import Edge, trace
from keras_qat.layers import FakeQuantize, quantized_layer
from keras_qat.transform.rebuild import copy_layer, rebuild
from keras_qat.types import Placement, TensorRange

SUFFIX = "_quantize"
"""A tensor's FakeQuantize layer is named after the tensor with this behind it."""


def apply_placement(model: Any, placement: Placement, ranges: Mapping[str, TensorRange]) -> keras.Model:
    """Insert FakeQuantize layers on the planned edges and quantize the planned weights.

    Args:
        model: the float model that the placement was planned for. It is not touched.
        placement: from `plan`.
        ranges: the calibrated range of each observed tensor, from `calibrate`.

    Returns:
        A new model with the same inputs, outputs, layer names and weights. It trains, saves and loads like any other.

    Raises:
        UserError: a range is missing, or the placement was planned for another model.
    """
    traced = trace(model)
    _check(placement, ranges, {edge.tensor for edge in traced.graph.edges})
    fakes = {
        t.tensor: FakeQuantize(t.spec, ranges[t.range_of].amax, name=t.tensor.replace(":", "_") + SUFFIX)
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


def _check(placement: Placement, ranges: Mapping[str, TensorRange], tensors: set[str]) -> None:
    missing = [name for name in placement.observed if name not in ranges]
    if missing:
        raise UserError(
            f"{len(missing)} quantized tensors have no range. Received: ranges for {len(ranges)} tensors, none for "
            f"{missing[0]!r}. Calibrate the same model with the same placement."
        )
    unknown = [t.tensor for t in placement.tensors if t.tensor not in tensors]
    if unknown:
        raise UserError(
            f"The placement names tensors that the model lacks. Received: {unknown[0]!r}. "
            "Plan the placement from this model: `plan(trace(model).graph, target)`."
        )
