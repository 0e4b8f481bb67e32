"""Fake quantization as pure functions: what an integer engine will compute, in float32, with gradients.

    s  = a · (1 / q_max)
    x̂ = s · clip(round(x / s), q_min, q_max)                      round half to even

The gradient to x is the straight-through estimator (Bengio et al. 2013, https://arxiv.org/abs/1308.3432) with
saturation as in Jacob et al. 2018 (https://arxiv.org/abs/1712.05877), that to s is the one of LSQ (Esser et al. 2020,
https://arxiv.org/abs/1902.08153, equation 3):

    ∂x̂/∂x = 1 if q_min ≤ x / s ≤ q_max, else 0
    ∂x̂/∂s = round(x / s) - x / s inside, q_min below, q_max above

LSQ trains s and scales the second gradient by g = 1 / √(N · q_max), with N elements in the tensor of one image, so that
a scale learns at the pace of the weights. Here the trained weight is a = q_max · s, and one step of gradient descent
should move it as LSQ moves s, by η g ∂L/∂s. With ∂L/∂s = q_max · ∂L/∂a that is

    q_max · (s - η g ∂L/∂s) = a - η g q_max² ∂L/∂a

so the gradient to a is multiplied by g · q_max².

In training on a CPU the six elementwise operations of x̂ take as long for each tensor as the convolutions of a block.
Compilers that fuse (XLA) make one loop of them, TensorFlow without XLA doesn't, so there x̂ is computed by TensorFlow's
own operations, in one pass forward and one back (docs/qat.md has the times). Other backends evaluate the equation.
"""

from collections.abc import Callable, Mapping
from typing import Any

import keras

from keras_qat.types import QuantSpec

SMALLEST_AMAX = 1e-30
"""Replaces the amax of an all-zero tensor, so that its scale stays positive and its integers are 0."""


def fake_quantize(x: Any, amax: Any, spec: QuantSpec, *, training: bool = False) -> Any:
    """Round `x` to the integer grid of `spec`, in float. No gradient reaches the range.

    Args:
        x: float tensor of any shape.
        amax: largest magnitude kept: a scalar, or a tensor that broadcasts against `x`.
        spec: the integers.
        training: whether to use the backend's fast operation, which may round a tie of float32 the other way.

    Returns:
        A tensor of the shape and dtype of `x`, whose values are multiples of the scale. The gradient passes straight
        through inside the range.

    Example:
        >>> from keras import ops
        >>> fake_quantize(keras.ops.array([0.6, -3.0, 200.0]), 127.0, QuantSpec()).numpy().tolist()
        [1.0, -3.0, 127.0]
    """
    # In half precision a small scale would underflow to 0.
    s = keras.ops.stop_gradient(scale_of(keras.ops.cast(amax, "float32"), spec))
    rounded = round_to_grid if training else by_equation
    return keras.ops.cast(rounded(keras.ops.cast(x, "float32"), s, spec), x.dtype)


def fake_quantize_learned(x: Any, amax: Any, spec: QuantSpec, *, training: bool = False) -> Any:
    """Like `fake_quantize`, with LSQ's gradient to the range: a step on amax is q_max times LSQ's step on the scale.

    Args:
        x: float tensor of shape (batch, …).
        amax: largest magnitude kept, a scalar.
        spec: the integers.
        training: as for `fake_quantize`.

    Returns:
        A tensor of the shape and dtype of `x`, with the values of `fake_quantize`.

    Example:
        >>> from keras import ops
        >>> fake_quantize_learned(keras.ops.array([[0.6, -3.0, 200.0]]), 127.0, QuantSpec()).numpy().tolist()
        [[1.0, -3.0, 127.0]]
    """
    wide, amax = keras.ops.cast(x, "float32"), keras.ops.cast(amax, "float32")
    s = scale_of(amax, spec)
    fixed = keras.ops.stop_gradient(s)
    x_hat = (round_to_grid if training else by_equation)(wide, fixed, spec)
    # The factor is ∂x̂/∂s; the term behind it is exactly 0 and carries the gradient to a, multiplied by g · q_max².
    ratio = keras.ops.stop_gradient(wide) / fixed
    slope = keras.ops.where(
        keras.ops.logical_and(ratio >= spec.q_min, ratio <= spec.q_max),
        keras.ops.stop_gradient(x_hat) / fixed - ratio,
        keras.ops.clip(ratio, spec.q_min, spec.q_max),
    )
    scaled = s * (_gradient_scale(x, spec) * spec.q_max**2)
    return keras.ops.cast(x_hat + slope * (scaled - keras.ops.stop_gradient(scaled)), x.dtype)


def _gradient_scale(x: Any, spec: QuantSpec) -> Any:
    """LSQ's g. In a fully convolutional network the size of an image is known only when the step runs."""
    n = keras.ops.prod(keras.ops.cast(keras.ops.stack([1, *keras.ops.shape(x)[1:]]), "float32"))
    return 1.0 / keras.ops.sqrt(n * spec.q_max)


def fake_quantize_kernel(kernel: Any, reduce_axes: tuple[int, ...], spec: QuantSpec) -> Any:
    """Round weights to a grid per output channel, which follows the channel's largest magnitude at every step.

    Args:
        kernel: float weights.
        reduce_axes: the axes that are not output channels.
        spec: the integers; narrow, so that nothing saturates and the gradient to the kernel is 1.

    Returns:
        A tensor of the shape and dtype of `kernel`. No gradient flows through the scales: the loss doesn't steer them.

    Example:
        >>> from keras import ops
        >>> kernel = keras.ops.array([[0.4, 30.0], [127.0, -63.5]])
        >>> fake_quantize_kernel(kernel, (0,), QuantSpec(narrow=True)).numpy().tolist()
        [[0.0, 30.0], [127.0, -63.5]]
    """
    w = keras.ops.cast(kernel, "float32")
    s = scale_of(channel_amax(w, reduce_axes), spec)
    return keras.ops.cast(straight_through(w, s, spec, w), kernel.dtype)


def scale_of(amax: Any, spec: QuantSpec) -> Any:
    """The scale s of a range: amax · (1 / q_max) in float32, never zero.

    Args:
        amax: largest magnitude kept, float, of any shape.
        spec: the integers.

    Returns:
        The scale, of the shape of `amax`.

    Example:
        >>> float(scale_of(6.35, QuantSpec()))
        0.05...
    """
    # TensorFlow's graph optimizer would make a product of a division by a constant, and that rounds otherwise: a weight
    # next to the border of two integers would be another one in a graph than in the file.
    return keras.ops.maximum(amax, SMALLEST_AMAX) * (1 / spec.q_max)


def channel_amax(kernel: Any, reduce_axes: tuple[int, ...]) -> Any:
    """The largest magnitude of each output channel.

    Args:
        kernel: float weights.
        reduce_axes: the axes that are not output channels.

    Returns:
        A tensor of the rank of `kernel`, of size 1 along `reduce_axes`. No gradient flows through it: scales follow the
        weights, the loss doesn't steer them.

    Example:
        >>> from keras import ops
        >>> channel_amax(keras.ops.array([[0.5, 30.0], [2.0, -63.5]]), (0,)).numpy().tolist()
        [[2.0, 63.5]]
    """
    return keras.ops.stop_gradient(keras.ops.max(keras.ops.abs(kernel), axis=reduce_axes, keepdims=True))


def round_to_grid(x: Any, s: Any, spec: QuantSpec) -> Any:
    """x̂ = s · clip(round(x / s), q_min, q_max), with gradient 1 to x inside the range and 0 outside.

    Only for training: next to a tie it may round the other way than the equation, which engines follow. Ties are common
    where the inputs lie on a grid of their own, such as behind another quantized tensor and a leaky ReLU.

    Args:
        x: float32 tensor of any shape.
        s: the scale, float32: a scalar, or a tensor that broadcasts against `x`.
        spec: the integers.

    Returns:
        A float32 tensor of the shape of `x`.

    Example:
        >>> from keras import ops
        >>> round_to_grid(keras.ops.array([0.6, 200.0]), keras.ops.array(1.0), QuantSpec()).numpy().tolist()
        [1.0, 127.0]
    """
    rounded = _FAST.get(keras.backend.backend(), by_equation) if len(s.shape) == 0 else by_equation
    return rounded(x, s, spec)


def by_equation(x: Any, s: Any, spec: QuantSpec) -> Any:
    """`round_to_grid` in elementwise operations, on any backend."""
    return straight_through(x, s, spec, keras.ops.clip(x, spec.q_min * s, spec.q_max * s))


def straight_through(x: Any, s: Any, spec: QuantSpec, surrogate: Any) -> Any:
    """x̂ with the gradient of another tensor.

    Args:
        x: float32 tensor of any shape.
        s: the scale, float32, which broadcasts against `x`.
        spec: the integers.
        surrogate: a tensor of the shape of `x`, whose gradient is used.

    Returns:
        A float32 tensor of the shape of `x`.
    """
    x_hat = s * keras.ops.clip(keras.ops.round(x / s), spec.q_min, spec.q_max)
    # The second term is exactly 0 in the forward pass, so the result is x̂ to the last bit.
    return keras.ops.stop_gradient(x_hat) + (surrogate - keras.ops.stop_gradient(surrogate))


def _tensorflow(x: Any, s: Any, spec: QuantSpec) -> Any:
    """One operation forward and one back, on CPU, on GPU and in XLA.

    The first one multiplies by 1 / s instead of dividing by s, so next to a tie it may round the other way. Its own
    gradient has no kernel in XLA; that of `FakeQuantWithMinMaxVars`, 1 inside the range and 0 outside, has one.
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


_FAST: Mapping[str, Callable[[Any, Any, QuantSpec], Any]] = {"tensorflow": _tensorflow}
"""The fast x̂ of each backend that has one, for a scalar scale."""
