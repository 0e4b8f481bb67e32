"""The parts of models that measure other models: a network with its inner tensors, and pairs of exact and rounded ones.

The rounding of every quantized kernel is measured on the float network's activations. Each layer is then compared for
its own rounding alone, and one pass of the float network measures all of them.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras

from keras_qat import graph, layers, placement, transform
from keras_qat.errors import UserError
from keras_qat.types import OpKind


def copy_network(traced: graph.Trace) -> tuple[keras.Model, Mapping[str, Any]]:
    """Return a copy of a network, and the symbolic tensors that its nodes read, by their names in the graph."""
    tensors: dict[str, Any] = {}

    def remember(edge: graph.Edge, tensor: Any) -> Any:
        tensors[edge.tensor] = tensor
        return tensor

    return transform.rebuild(traced, transform.copy_layer, remember), tensors


def kernel_calls(quantized: graph.Trace) -> Mapping[str, tuple[graph.Node, ...]]:
    """Return the nodes that call each layer with a quantized kernel, by the layer's name, in the order of the graph."""
    calls: dict[str, tuple[graph.Node, ...]] = defaultdict(tuple)
    for node in quantized.graph.nodes:
        if isinstance(quantized.calls[node.name].operation, layers.WeightQuantized):
            calls[node.layer] += (node,)
    return calls


def require_made_of(exact: graph.Trace, simulated: graph.Trace) -> None:
    """Refuse a pair of models whose tensors cannot be compared.

    Args:
        exact: The float model.
        simulated: The quantized model.

    Raises:
        UserError: If `simulated` was made of another model than `exact`, or by a version of keras-qat that read the
            model's graph differently.
    """
    expected = {node.name: exact.calls[node.name].output_shapes for node in exact.graph.nodes}
    received = {
        node.name: simulated.calls[node.name].output_shapes
        for node in simulated.graph.nodes
        if node.kind is not OpKind.FAKE_QUANTIZE
    }
    different = [name for name in (*expected, *received) if expected.get(name) != received.get(name)]
    if different:
        raise UserError(
            f"The quantized model was made of another float model. Received: {different[0]!r} with the output shapes "
            f"{expected.get(different[0])} in the float model and {received.get(different[0])} in the quantized one. "
            "Give the model that `apply_placement` was given, or quantize again, which is also needed for models that "
            "another version of keras-qat read differently."
        )


@dataclass(frozen=True)
class Pair:
    """The exact and the rounded output of one call of a layer with a quantized kernel.

    Args:
        node: The name of the call's node.
        exact: W x, a symbolic tensor, without bias and activation.
        rounded: Ŵ x̂, likewise.
        other_axes: All axes except the channel axis.
    """

    node: str
    exact: Any
    rounded: Any
    other_axes: tuple[int, ...]


def paired_outputs(model: Any, quantized: graph.Trace) -> tuple[keras.Model, tuple[Pair, ...]]:
    """Return a copy of the float network, and the pairs that can be computed from its inputs.

    Args:
        model: The float model. It is not changed.
        quantized: The trace of what `apply_placement` made of it.

    Raises:
        UserError: If `quantized` was made of another model.
    """
    exact = graph.trace(model)
    require_made_of(exact, quantized)
    network, tensors = copy_network(exact)
    pairs = []
    for layer, nodes in kernel_calls(quantized).items():
        rounded, original = (t.calls[nodes[0].name].operation for t in (quantized, exact))
        w_x = transform.LayerCopy(original, f"keras_qat_float_{layer}", linear=True)
        w_x_hat = transform.LayerCopy(rounded, f"keras_qat_rounded_{layer}", linear=True)
        channels_first = getattr(original, "data_format", None) == "channels_first"
        for node in nodes:
            x = tensors[exact.graph.by_name[node.name].inputs[0]]
            fake = _fake_quantize_before(quantized, node)
            x_hat = (
                x
                if fake is None
                else transform.LayerCopy(fake, f"keras_qat_input_{transform.scope_name(node.name)}")(x)
            )
            y, rank = w_x(x), len(x.shape)
            axes = tuple(a for a in range(rank) if a != (1 if channels_first else rank - 1))
            pairs.append(Pair(node.name, y, w_x_hat(x_hat), axes))
    return network, tuple(pairs)


def _fake_quantize_before(quantized: graph.Trace, node: graph.Node) -> Any:
    """Return the FakeQuantize layer of a node's input, seen through nodes that only move numbers; `None` for floats."""
    producer = quantized.graph.producer(node.inputs[0])
    while producer.kind in placement.MOVES_NUMBERS:
        producer = quantized.graph.producer(producer.inputs[0])
    return quantized.calls[producer.name].operation if producer.kind is OpKind.FAKE_QUANTIZE else None
