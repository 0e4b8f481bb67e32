"""Choose the range of each output channel of a kernel: max|w|, or less where that has a smaller squared error.

At every step of training, a quantized layer takes max|w| of each output channel for its range. A smaller range is
therefore chosen by clipping the kernel itself. With w the weights of one channel and a ≤ max|w|,

    w ← clip(w, -a, a),    a = argmin Σ (w - s · clip(round(w / s), -q_max, q_max))²,    s = a / q_max

(Sung et al. 2015, https://arxiv.org/abs/1511.06488). Weights beyond a would saturate in any case. The gain is small
with 8 bits and large with 4, where few steps are left for the many small weights.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from keras_qat.calibration.probes import kernel_calls
from keras_qat.errors import UserError
from keras_qat.graph import trace
from keras_qat.transform import copy_layer, rebuild
from keras_qat.types import QuantSpec

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
