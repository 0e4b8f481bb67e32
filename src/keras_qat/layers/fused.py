"""x̂ of a tensor with one range, in as few passes over memory as the backend allows.

A training step on a CPU spends on six small operations for each tensor what it spends on the convolutions of a block;
compilers that fuse (XLA) make one loop of them, TensorFlow without XLA doesn't. There its own operations take one
pass forward and one back (docs/qat.md has the times).
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
