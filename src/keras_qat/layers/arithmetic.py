"""x̂ of a tensor with one range, in as few passes over memory as the backend allows.

A training step on a CPU spends on six small operations for each tensor what it spends on the convolutions of a block;
compilers that fuse (XLA) make one loop of them, TensorFlow without XLA doesn't. There its own operations take one
pass forward and one back (docs/qat.md has the times).

Fake quantization as pure functions: what the integer engine will compute, in float32, and its gradients.

    s  = a / q_max
    x̂ = s · clip(round(x / s), q_min, q_max)                      round half to even

To x the gradient is the straight-through estimator (Bengio et al. 2013, https://arxiv.org/abs/1308.3432) with
saturation as in Jacob et al. 2018 (https://arxiv.org/abs/1712.05877), to s that of LSQ (Esser et al. 2020,
https://arxiv.org/abs/1902.08153, equation 3):

    ∂x̂/∂x = 1 if q_min ≤ x / s ≤ q_max, else 0
    ∂x̂/∂s = round(x / s) - x / s inside, q_min below, q_max above

LSQ trains s and scales the second by g = 1 / √(N · q_max), N numbers in the tensor of one image, so that a scale learns
at the pace of the weights. Here the weight is a = q_max · s, and one step of gradient descent shall move it as LSQ
moves s, by η g ∂L/∂s. With ∂L/∂s = q_max · ∂L/∂a that is

    q_max · (s - η g ∂L/∂s) = a - η g q_max² ∂L/∂a

so the gradient to a is given g · q_max² times as large as it is.

A backend that has an operation for x̂ takes it (`keras_qat.layers.fused`); the others are given the equation.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import keras
from keras import ops

from keras_qat.types import QuantSpec


def round_to_grid(x: Any, s: Any, spec: QuantSpec) -> Any:
    """x̂ = s · clip(round(x / s), q_min, q_max), whose gradient to x is 1 inside the range and 0 outside.

    For training alone: next to a tie it may round the other way than the equation, which engines follow. Where inputs
    lie on a grid of their own, such as behind another quantized tensor and a leaky ReLU, ties are common.

    Args:
        x: float32 tensor of any shape.
        s: the scale, float32: a scalar, or a tensor that broadcasts against `x`.
        spec: the integers.
    """
    fused = _FUSED.get(keras.backend.backend()) if len(s.shape) == 0 else None
    return by_equation(x, s, spec) if fused is None else fused(x, s, spec)


def by_equation(x: Any, s: Any, spec: QuantSpec) -> Any:
    """`round_to_grid` in plain operations, on any backend."""
    return straight_through(x, s, spec, ops.clip(x, spec.q_min * s, spec.q_max * s))


def straight_through(x: Any, s: Any, spec: QuantSpec, way: Any) -> Any:
    """x̂, with the gradient of another tensor.

    Args:
        x: float32 tensor of any shape.
        s: the scale, float32, broadcasts against `x`.
        spec: the integers.
        way: of the shape of `x`; the gradient goes through it.
    """
    x_hat = s * ops.clip(ops.round(x / s), spec.q_min, spec.q_max)
    # The second term is exactly 0 in the forward pass, so the result is x̂ to the last bit.
    return ops.stop_gradient(x_hat) + (way - ops.stop_gradient(way))


def _tensorflow(x: Any, s: Any, spec: QuantSpec) -> Any:
    """One operation each way, on CPU, on GPU and in XLA.

    The first multiplies by 1 / s instead of dividing: next to a tie it may round the other way. Its own gradient has no
    kernel in XLA; that of `FakeQuantWithMinMaxVars`, 1 inside the range and 0 outside, has.
    """
    import tensorflow as tf

    low, high = spec.q_min * s, spec.q_max * s

    @tf.custom_gradient
    def rounded(x: Any) -> Any:
        x_hat = tf.raw_ops.QuantizeAndDequantizeV4(
            input=x,
            input_min=low,
            input_max=high,
            signed_input=spec.signed,
            num_bits=spec.bits,
            range_given=True,
            round_mode="HALF_TO_EVEN",
            narrow_range=spec.narrow,
            axis=-1,
        )

        def gradient(upstream: Any) -> Any:
            to_x, _, _ = tf.raw_ops.FakeQuantWithMinMaxVarsGradient(
                gradients=upstream, inputs=x, min=low, max=high, num_bits=spec.bits, narrow_range=spec.narrow
            )
            return to_x

        return x_hat, gradient

    return rounded(x)


_FUSED: Mapping[str, Callable[[Any, Any, QuantSpec], Any]] = MappingProxyType({"tensorflow": _tensorflow})


SMALLEST_AMAX = 1e-30
"""Stands for the amax of an all-zero tensor, so that its scale stays positive and its integers are 0."""


def fake_quantize(x: Any, amax: Any, spec: QuantSpec, *, training: bool = False) -> Any:
    """Round `x` to the integer grid of `spec`, in float. No gradient reaches the range.

    Args:
        x: float tensor of any shape.
        amax: largest magnitude kept, a scalar, or a tensor that broadcasts against `x`.
        spec: the integers.
        training: take the backend's fast operation, which may round a tie of float32 the other way.

    Returns:
        A tensor like `x`, each number a multiple of its scale; the gradient passes straight through inside the range.

    Example:
        >>> from keras import ops
        >>> fake_quantize(ops.array([0.6, -3.0, 200.0]), 127.0, QuantSpec()).numpy().tolist()
        [1.0, -3.0, 127.0]
    """
    # In half precision a small scale would underflow to 0.
    s = ops.stop_gradient(scale_of(ops.cast(amax, "float32"), spec))
    rounded = round_to_grid if training else by_equation
    return ops.cast(rounded(ops.cast(x, "float32"), s, spec), x.dtype)


def fake_quantize_learned(x: Any, amax: Any, spec: QuantSpec, *, training: bool = False) -> Any:
    """Like `fake_quantize`, with LSQ's gradient to the range: a step on amax is q_max times LSQ's step on the scale.

    Args:
        x: float tensor, shape (batch, …).
        amax: largest magnitude kept, a scalar.
        spec: the integers.
        training: as for `fake_quantize`.

    Returns:
        A tensor like `x`, the same numbers as those of `fake_quantize`.
    """
    wide, amax = ops.cast(x, "float32"), ops.cast(amax, "float32")
    s = scale_of(amax, spec)
    fixed = ops.stop_gradient(s)
    x_hat = (round_to_grid if training else by_equation)(wide, fixed, spec)
    # ∂x̂/∂s as a factor; behind it a term that is exactly 0 and carries the gradient to a, g · q_max² times as large.
    ratio = ops.stop_gradient(wide) / fixed
    slope = ops.where(
        ops.logical_and(ratio >= spec.q_min, ratio <= spec.q_max),
        ops.stop_gradient(x_hat) / fixed - ratio,
        ops.clip(ratio, spec.q_min, spec.q_max),
    )
    scaled = s * (_gradient_scale(x, spec) * spec.q_max**2)
    return ops.cast(x_hat + slope * (scaled - ops.stop_gradient(scaled)), x.dtype)


def fake_quantize_kernel(kernel: Any, reduce_axes: tuple[int, ...], spec: QuantSpec) -> Any:
    """Round weights to the grid that reaches to the largest of each output channel, which it follows at every step.

    Args:
        kernel: float weights.
        reduce_axes: the axes that are not output channels.
        spec: the integers, narrow: nothing saturates, and the gradient to the kernel is 1.

    Returns:
        A tensor like `kernel`. No gradient flows through the scales: the loss doesn't steer them.

    Example:
        >>> from keras import ops
        >>> kernel = ops.array([[0.4, 30.0], [127.0, -63.5]])
        >>> fake_quantize_kernel(kernel, (0,), QuantSpec(narrow=True)).numpy().tolist()
        [[0.0, 30.0], [127.0, -63.5]]
    """
    w = ops.cast(kernel, "float32")
    s = scale_of(channel_amax(w, reduce_axes), spec)
    return ops.cast(straight_through(w, s, spec, w), kernel.dtype)


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


def _gradient_scale(x: Any, spec: QuantSpec) -> Any:
    """G of LSQ. The sizes of an image are known when the step is built, but for those of a fully convolutional net."""
    n = ops.prod(ops.cast(ops.stack([1, *ops.shape(x)[1:]]), "float32"))
    return 1.0 / ops.sqrt(n * spec.q_max)
