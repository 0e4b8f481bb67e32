"""The float output and the rounded output of every quantized kernel, on the float network's activations.

Each layer is compared for its own rounding alone, so all of them are measured in one pass of the float network.

Choose the range of each output channel of a kernel: all of it, or less, with the least squared error.

A quantized layer takes max|w| of each output channel for its range, at every step of training. So a smaller range is
chosen by clipping the kernel itself: with w the weights of one channel and a ≤ max|w|,

    w ← clip(w, -a, a),    a = argmin Σ (w - s · clip(round(w / s), -q_max, q_max))²,    s = a / q_max

(Sung et al. 2015, https://arxiv.org/abs/1511.06488). What lies beyond a would saturate anyway. With 8 bits little is
gained; with 4 bits much, since few steps are left for the many small weights.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from keras_qat.errors import DataError, UserError
from keras_qat.graph import Edge, Graph, Node, Trace, trace
from keras_qat.layers import WeightQuantized
from keras_qat.placement import MOVES_NUMBERS
from keras_qat.transform import LayerCopy, copy_layer, rebuild, scope_name
from keras_qat.types import OpKind, QuantSpec


@dataclass(frozen=True)
class Pair:
    """One call of a layer with a quantized kernel.

    Args:
        node: its name.
        exact: W x, symbolic, without bias and activation.
        rounded: Ŵ x̂, likewise.
        other_axes: all axes but the channels'.
    """

    node: str
    exact: Any
    rounded: Any
    other_axes: tuple[int, ...]


def kernel_calls(quantized: Trace) -> Mapping[str, tuple[Node, ...]]:
    """The nodes that call each layer with a quantized kernel, by the layer's name, in the order of the graph."""
    found: dict[str, tuple[Node, ...]] = defaultdict(tuple)
    for node in quantized.graph.nodes:
        if isinstance(quantized.calls[node.name].operation, WeightQuantized):
            found[node.layer] += (node,)
    return found


def require_made_of(exact: Trace, simulated: Trace) -> None:
    """Refuse a pair of models whose tensors can't be compared.

    Args:
        exact: the float model.
        simulated: the quantized one.

    Raises:
        UserError: `simulated` was made of another model, or by a version that read it otherwise.
    """
    wanted = {node.name: exact.calls[node.name].output_shapes for node in exact.graph.nodes}
    found = {
        node.name: simulated.calls[node.name].output_shapes
        for node in simulated.graph.nodes
        if node.kind is not OpKind.FAKE_QUANTIZE
    }
    different = [name for name in (*wanted, *found) if wanted.get(name) != found.get(name)]
    if different:
        raise UserError(
            f"The quantized model was made of another float model. Received: {different[0]!r} with the output shapes "
            f"{wanted.get(different[0])} in the float model and {found.get(different[0])} in the quantized one. Give "
            "the model that `apply_placement` was given, or quantize again: so it is, too, with models that another "
            "version of keras-qat read otherwise."
        )


def paired_outputs(model: Any, quantized: Trace) -> tuple[keras.Model, tuple[Pair, ...]]:
    """A copy of the float network, and the pairs that can be computed from its inputs.

    Args:
        model: the float model. It is not changed.
        quantized: what `apply_placement` made of it.

    Raises:
        UserError: it was made of another model.
    """
    reads: dict[str, Any] = {}

    def remember(edge: Edge, tensor: Any) -> Any:
        if edge.index == 0:
            reads[edge.consumer] = tensor
        return tensor

    exact = trace(model)
    require_made_of(exact, quantized)
    network = rebuild(exact, copy_layer, remember)
    pairs = []
    for layer, nodes in kernel_calls(quantized).items():
        rounded, original = (t.calls[nodes[0].name].operation for t in (quantized, exact))
        w_x = LayerCopy(original, f"keras_qat_float_{layer}", linear=True)
        w_x_hat = LayerCopy(rounded, f"keras_qat_rounded_{layer}", linear=True)
        channels_first = getattr(original, "data_format", None) == "channels_first"
        for node in nodes:
            x = reads[node.name]
            fake = _fake_quantize_before(quantized, node)
            x_hat = x if fake is None else LayerCopy(fake, f"keras_qat_input_{scope_name(node.name)}")(x)
            y, rank = w_x(x), len(x.shape)
            axes = tuple(a for a in range(rank) if a != (1 if channels_first else rank - 1))
            pairs.append(Pair(node.name, y, w_x_hat(x_hat), axes))
    return network, tuple(pairs)


def mean_over_images(probe: Any, batches: Iterable[list[np.ndarray]]) -> tuple[dict[str, np.ndarray], int]:
    """The mean over all images of what a probe gives for each batch.

    Args:
        probe: a model with a dictionary of outputs, each a mean over the images of its batch.
        batches: from `read_batches`.

    Returns:
        The means, float64, and the number of images.

    Raises:
        DataError: there are no images.
    """
    sums: dict[str, Any] = {}
    images = 0
    for x in batches:
        images += len(x[0])
        for name, found in probe.predict_on_batch(x).items():
            sums[name] = sums.get(name, 0) + np.asarray(found, np.float64) * len(x[0])
    if images == 0:
        raise DataError("There is nothing to repair the model with. Received: 0 images. Give at least one batch.")
    return {name: total / images for name, total in sums.items()}, images


def own_batch_norm(model: Any, graph: Graph, nodes: Sequence[Node]) -> Any:
    """The batch norm behind all calls of a layer and behind nothing else; a string that says why there is none.

    Args:
        model: that the graph was read from.
        graph: of the quantized model.
        nodes: the calls of one layer.
    """
    layer = model.get_layer(nodes[0].layer)
    behind = [graph.sole_consumer(node.outputs[0]) for node in nodes]
    norms = {node.layer for node in behind if node is not None and node.kind is OpKind.BATCH_NORM}
    if len(norms) != 1 or None in behind or not _is_linear(layer):
        return "no batch norm of its own is behind it"
    norm = model.get_layer(norms.pop())
    channels_first = getattr(layer, "data_format", None) == "channels_first"
    if norm.axis not in ((1,) if channels_first else (-1, len(layer.output.shape) - 1)):
        return "the batch norm behind it doesn't normalize its channels"
    if sum(node.layer == norm.name for node in graph.nodes) != len(nodes):
        return "other layers share the batch norm behind it"
    return norm


def _is_linear(layer: Any) -> bool:
    return getattr(layer, "activation", None) in (None, keras.activations.linear)


def _fake_quantize_before(quantized: Trace, node: Node) -> Any:
    """The FakeQuantize layer that an input comes through, past what only moves numbers; `None` for a float input."""
    producer = quantized.graph.producer(node.inputs[0])
    while producer.kind in MOVES_NUMBERS:
        producer = quantized.graph.producer(producer.inputs[0])
    return quantized.calls[producer.name].operation if producer.kind is OpKind.FAKE_QUANTIZE else None


_CANDIDATES = np.linspace(0.2, 1.0, 81)
"""Shares of max|w|, 1 the last: what doesn't gain stays as it is."""


@dataclass(frozen=True)
class WeightRanges:
    """A model with its kernels' ranges chosen, and what was changed.

    Args:
        model: the new quantized model.
        kept: a / max|w| of each output channel, float64, shape (channels,), by layer.
    """

    model: Any
    kept: Mapping[str, np.ndarray] = field(repr=False)


def choose_weight_ranges(quantized: Any, method: str = "mse") -> WeightRanges:
    """Choose the range of every output channel of every quantized kernel.

    Args:
        quantized: what `apply_placement` made. It is not changed.
        method: `"absmax"`, all of it, or `"mse"`.

    Raises:
        UserError: the method is unknown.

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
    """The whole range: 1 for each channel, 1 along the axes `others`."""
    return np.ones([1 if axis in others else size for axis, size in enumerate(w.shape)])


def mse(w: np.ndarray, others: tuple[int, ...], spec: QuantSpec) -> np.ndarray:
    """The share of max|w| with the least squared error, of each channel; 1 along the axes `others`."""
    amax = np.maximum(np.max(np.abs(w), axis=others, keepdims=True), np.finfo(np.float64).tiny)
    best, least = np.ones_like(amax), np.full_like(amax, np.inf)
    for share in _CANDIDATES[::-1]:
        s = share * amax / spec.q_max
        error = np.sum((w - s * np.clip(np.round(w / s), -spec.q_max, spec.q_max)) ** 2, axis=others, keepdims=True)
        best, least = np.where(error < least, share, best), np.minimum(error, least)
    return np.asarray(best)


WEIGHT_METHODS: Mapping[str, Callable[[np.ndarray, tuple[int, ...], QuantSpec], np.ndarray]] = {
    "absmax": absmax,
    "mse": mse,
}


def find_weight_method(method: str) -> Callable[[np.ndarray, tuple[int, ...], QuantSpec], np.ndarray]:
    """The method of that name.

    Raises:
        UserError: there is none.
    """
    if method not in WEIGHT_METHODS:
        known = ", ".join(WEIGHT_METHODS)
        raise UserError(f"Unknown method for weight ranges. Received: {method!r}. Choose one of: {known}.")
    return WEIGHT_METHODS[method]
