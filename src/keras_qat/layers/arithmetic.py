"""Fake quantization as pure functions of `keras.ops`: what the integer engine will compute, in float32.

    s  = a / q_max
    x̂ = s · clip(round(x / s), q_min, q_max)

with round-half-to-even. The gradient is the straight-through estimator (Bengio et al. 2013, https://arxiv.org/abs/1308.3432)
with saturation as in Jacob et al. 2018 (https://arxiv.org/abs/1712.05877): 1 inside the range, 0 outside.
"""

from typing import Any

from keras import ops

from keras_qat.types import QuantSpec

SMALLEST_AMAX = 1e-30
"""Stands for the amax of an all-zero tensor, so that its scale stays positive and its integers are 0."""


def fake_quantize(x: Any, amax: Any, spec: QuantSpec) -> Any:
    """Round `x` to the integer grid of `spec`, in float.

    Args:
        x: float tensor of any shape.
        amax: largest magnitude kept: a scalar, or a tensor that broadcasts against `x` (per channel).
        spec: the integers.

    Returns:
        A tensor like `x`, each number a multiple of its scale; the gradient passes straight through inside the range.

    Example:
        >>> from keras import ops
        >>> fake_quantize(ops.array([0.6, -3.0, 200.0]), 127.0, QuantSpec()).numpy().tolist()
        [1.0, -3.0, 127.0]
    """
    dtype = x.dtype
    # In half precision a small scale would underflow to 0.
    x, s = ops.cast(x, "float32"), scale_of(ops.cast(amax, "float32"), spec)
    inside = ops.clip(x, spec.q_min * s, spec.q_max * s)
    x_hat = s * ops.clip(ops.round(x / s), spec.q_min, spec.q_max)
    # The second term is exactly 0 in the forward pass, so the result is x̂ to the last bit.
    return ops.cast(ops.stop_gradient(x_hat) + (inside - ops.stop_gradient(inside)), dtype)


def scale_of(amax: Any, spec: QuantSpec) -> Any:
    """The scale s of a range: amax / q_max, never zero.

    Args:
        amax: largest magnitude kept, float, any shape.
        spec: the integers.

    Returns:
        The scale, of the shape of `amax`.
    """
    return ops.maximum(amax, SMALLEST_AMAX) / spec.q_max


def channel_amax(kernel: Any, reduce_axes: tuple[int, ...]) -> Any:
    """The largest magnitude of each output channel.

    Args:
        kernel: weights.
        reduce_axes: the axes that are not output channels.

    Returns:
        A tensor of the rank of `kernel`, 1 along `reduce_axes`. No gradient flows through it: scales follow the
        weights, the loss doesn't steer them.
    """
    return ops.stop_gradient(ops.max(ops.abs(kernel), axis=reduce_axes, keepdims=True))
