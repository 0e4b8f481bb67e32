"""The rounding of kernels: pairs of exact and rounded outputs, and the range of each output channel.

Every quantized kernel is compared with its float kernel on the activations of the float network, so that each layer
shows its own rounding alone, and one pass of the float network measures all layers.

At every step of training, a quantized layer takes max|w| of each output channel for its range. A smaller range is
therefore chosen by clipping the kernel itself. With w the weights of one channel and a ≤ max|w|,

    w ← clip(w, -a, a),    a = argmin Σ (w - s · clip(round(w / s), -q_max, q_max))²,    s = a / q_max

(Sung et al. 2015, https://arxiv.org/abs/1511.06488). Weights beyond a would saturate in any case. The gain is small
with 8 bits and large with 4, where few steps are left for the many small weights.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from keras_qat import graph, layers, placement, transform
from keras_qat.errors import UserError
from keras_qat.graph import trace
from keras_qat.transform import copy_layer, rebuild
from keras_qat.types import OpKind, QuantSpec


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


WeightMethod = Callable[[np.ndarray, tuple[int, ...], QuantSpec], np.ndarray]
"""(kernel, float64; all axes except the channel axis; its integers) → the share of max|w| to keep, 1 along those axes.
"""

_CANDIDATES = np.linspace(0.2, 1.0, 81)
"""Shares of max|w|. 1 is tried first, so a channel that gains nothing keeps its range."""


@dataclass(frozen=True)
class WeightRanges:
    """A model with the ranges of its kernels chosen, and what was changed.

    Args:
        model: The new quantized model.
        kept: a / max|w| of each output channel, float64, shape (channels,), by the layer's name.
    """

    model: Any
    kept: Mapping[str, np.ndarray] = field(repr=False)


def choose_weight_ranges(quantized: Any, method: str = "mse") -> WeightRanges:
    """Choose the range of every output channel of every quantized kernel.

    Args:
        quantized: The model that `apply_placement` made. It is not changed.
        method: `"absmax"`, which keeps max|w|, or `"mse"`.

    Returns:
        A copy of the model with clipped kernels, and the share of max|w| that each channel keeps.

    Raises:
        UserError: If there is no such method.

    Example:
        >>> from keras_qat.layers import QuantizedDense
        >>> x = keras.Input((999,), name="x")
        >>> layer = QuantizedDense(2, weight_spec=QuantSpec(bits=4, narrow=True), name="dense")
        >>> model = keras.Model(x, layer(x))
        >>> kernel = np.random.default_rng(0).normal(size=(999, 2)).astype("float32")
        >>> layer.set_weights([kernel, np.zeros(2)])
        >>> bool((choose_weight_ranges(model).kept["dense"] < 0.9).all())
        True
    """
    choose = find_weight_method(method)
    traced = trace(quantized)
    model = rebuild(traced, copy_layer, lambda _, tensor: tensor)
    kept: dict[str, np.ndarray] = {}
    for name in kernel_calls(traced):
        layer = model.get_layer(name)
        w = keras.ops.convert_to_numpy(layer.kernel)
        others = layer.kernel_reduce_axes
        amax = np.max(np.abs(w), axis=others, keepdims=True)
        share = choose(w.astype(np.float64), others, layer.weight_spec)
        layer.kernel.assign(np.clip(w, -share * amax, share * amax))
        kept[name] = share.reshape(-1)
    return WeightRanges(model, kept)


def absmax(w: np.ndarray, others: tuple[int, ...], spec: QuantSpec) -> np.ndarray:  # noqa: ARG001
    """Return 1 for each channel, which keeps max|w|."""
    return np.ones([1 if axis in others else size for axis, size in enumerate(w.shape)])


def mse(w: np.ndarray, others: tuple[int, ...], spec: QuantSpec) -> np.ndarray:
    """Return the share of max|w| with the least squared error, of each channel."""
    amax = np.maximum(np.max(np.abs(w), axis=others, keepdims=True), np.finfo(np.float64).tiny)
    best, least = np.ones_like(amax), np.full_like(amax, np.inf)
    for share in _CANDIDATES[::-1]:
        s = share * amax / spec.q_max
        error = np.sum((w - s * np.clip(np.round(w / s), -spec.q_max, spec.q_max)) ** 2, axis=others, keepdims=True)
        best, least = np.where(error < least, share, best), np.minimum(error, least)
    return np.asarray(best)


WEIGHT_METHODS: Mapping[str, WeightMethod] = {"absmax": absmax, "mse": mse}


def find_weight_method(method: str) -> WeightMethod:
    """Return the method of that name.

    Raises:
        UserError: If there is no such method.
    """
    if method not in WEIGHT_METHODS:
        known = ", ".join(WEIGHT_METHODS)
        raise UserError(f"Unknown method for weight ranges. Received: {method!r}. Choose one of: {known}.")
    return WEIGHT_METHODS[method]
