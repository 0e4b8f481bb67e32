"""Gradients of fake quantization compared with finite differences in float64, and TensorFlow's own operation.

Rounding has no derivative; what is differentiated is a surrogate whose rounding offset is held constant:

    x̂(x, s) = s · clip(x / s + d, q_min, q_max),   d = round(x / s) - x / s  at the point
"""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_qat.layers import FakeQuantize, fake_quantize, fake_quantize_kernel, fake_quantize_learned, scale_of
from keras_qat.layers.arithmetic import by_equation, round_to_grid
from keras_qat.types import QuantSpec

SPECS = {
    "int8": QuantSpec(),
    "narrow int8": QuantSpec(narrow=True),
    "uint8": QuantSpec(signed=False, storage="uint8"),
    "int4": QuantSpec(bits=4),
    "narrow int4": QuantSpec(bits=4, narrow=True),
    "uint4": QuantSpec(bits=4, signed=False),
    "int2": QuantSpec(bits=2),
    "narrow int2": QuantSpec(bits=2, narrow=True),
}
AMAX = 1.7


def by_spec(*names: str) -> pytest.MarkDecorator:
    chosen = names or tuple(SPECS)
    return pytest.mark.parametrize("spec", [SPECS[name] for name in chosen], ids=chosen)


def ratio(x: np.ndarray, spec: QuantSpec) -> np.ndarray:
    return np.asarray(x, np.float64) * spec.q_max / np.float64(np.float32(AMAX))


def numbers(spec: QuantSpec, count: int = 3000, seed: int = 0) -> np.ndarray:
    """Inside and outside the range; away from ties and from the ends, where float32 decides by its rounding."""
    x = np.random.default_rng(seed).normal(0, 1.3, count).astype("float32")
    v = ratio(x, spec)
    near = np.abs(v - np.floor(v) - 0.5) < 1e-3
    near |= (np.abs(v - spec.q_min) < 1e-3) | (np.abs(v - spec.q_max) < 1e-3)
    x = x[~near]
    v = ratio(x, spec)
    assert (v > spec.q_max).any()
    assert (v < spec.q_min).any()
    return x


def surrogate(x: np.ndarray, amax: float, offset: np.ndarray, spec: QuantSpec) -> np.ndarray:
    s = amax / spec.q_max
    # Clipped before the offset comes, so that an offset can't move a number across the end.
    v = x / s
    inside = (v >= spec.q_min) & (v <= spec.q_max)
    return np.asarray(s * np.where(inside, v + offset, np.clip(v, spec.q_min, spec.q_max)))


def slopes(x: np.ndarray, spec: QuantSpec, step: float = 1e-7) -> tuple[np.ndarray, np.ndarray]:
    """∂x̂/∂x and ∂x̂/∂amax, by central differences."""
    amax, wide = float(np.float32(AMAX)), np.asarray(x, np.float64)
    offset = np.rint(wide * spec.q_max / amax) - wide * spec.q_max / amax
    to_x = surrogate(wide + step, amax, offset, spec) - surrogate(wide - step, amax, offset, spec)
    to_amax = surrogate(wide, amax + step, offset, spec) - surrogate(wide, amax - step, offset, spec)
    return to_x / (2 * step), to_amax / (2 * step)


def gradients(function: Any, x: np.ndarray, upstream: np.ndarray, spec: QuantSpec) -> tuple[Any, Any]:
    """Of Σ upstream · x̂, to x and to amax."""
    tensor, amax = tf.constant(x), tf.constant(AMAX)
    with tf.GradientTape() as tape:
        tape.watch([tensor, amax])
        total = tf.reduce_sum(function(tensor, amax, spec) * upstream)
    to_x, to_amax = tape.gradient(total, [tensor, amax])
    return to_x.numpy(), None if to_amax is None else float(to_amax)


@by_spec()
def test_the_gradient_to_x_is_that_of_the_surrogate(spec: QuantSpec) -> None:
    x = numbers(spec)
    upstream = np.random.default_rng(1).normal(0, 1, x.shape).astype("float32")
    expected = upstream * slopes(x, spec)[0]
    for function in (fake_quantize, fake_quantize_learned):
        found, to_amax = gradients(function, x, upstream, spec)
        np.testing.assert_allclose(found, expected, atol=1e-6)
        # Zero means zero, not little.
        outside = (ratio(x, spec) > spec.q_max) | (ratio(x, spec) < spec.q_min)
        assert np.array_equal(found[outside], np.zeros(outside.sum()))
        assert (to_amax is None) == (function is fake_quantize)


@by_spec()
def test_the_gradient_to_the_range_is_that_of_the_surrogate_by_lsqs_factor(spec: QuantSpec) -> None:
    """N counts the numbers of an image, the batch doesn't; q_max² for amax is q_max times the scale."""
    x = numbers(spec)[:2400].reshape(4, 20, 10, 3)
    upstream = np.random.default_rng(1).normal(0, 1, x.shape).astype("float32")
    factor = spec.q_max**2 / np.sqrt(20 * 10 * 3 * spec.q_max)
    expected = factor * (upstream.astype(np.float64) * slopes(x, spec)[1]).sum()
    _, found = gradients(fake_quantize_learned, x, upstream, spec)
    # The sum is of 2400 terms of both signs, each rounded.
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-4 * factor * np.sqrt(x.size))


@by_spec("int8", "uint8", "int4")
def test_a_step_on_amax_is_q_max_times_the_step_of_lsq_on_the_scale(spec: QuantSpec) -> None:
    """LSQ trains s: s ← s - η g ∂L/∂s; equations 3 and 5 of the paper, in float64."""
    x = numbers(spec)[:600].reshape(3, 200)
    upstream = np.random.default_rng(7).normal(0, 1, x.shape).astype("float32")
    rate, s = 1e-4, np.float64(np.float32(AMAX)) / spec.q_max
    v = x.astype(np.float64) / s
    slope = np.where(
        v <= spec.q_min, spec.q_min, np.where(v >= spec.q_max, spec.q_max, np.clip(-v + np.rint(v), -0.5, 0.5))
    )
    step = rate / np.sqrt(200 * spec.q_max) * (upstream * slope).sum()
    layer = FakeQuantize(spec, AMAX, "learned")
    layer.build(x.shape)
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(layer(tf.constant(x)) * upstream)
    keras.optimizers.SGD(rate).apply(tape.gradient(total, layer.trainable_variables), layer.trainable_variables)
    assert float(layer.amax) - np.float32(AMAX) == pytest.approx(-spec.q_max * step, rel=1e-3)


@by_spec("int8", "uint8")
def test_the_gradient_to_the_range_by_hand(spec: QuantSpec) -> None:
    """Scale 1, one number an image: round(v) - v inside, the end outside; behind it 1 / q_max, g and q_max²."""
    low, high = spec.q_min, spec.q_max
    for number, slope in ((10.25, -0.25), (10.75, 0.25), (high + 3.0, high), (low - 3.0, low)):
        amax = tf.constant(float(high))
        with tf.GradientTape() as tape:
            tape.watch(amax)
            out = fake_quantize_learned(tf.constant([[number]]), amax, spec)
        assert float(tape.gradient(out, amax)) == pytest.approx(slope * high / np.sqrt(high), rel=1e-5)


@by_spec()
def test_a_learned_range_gives_the_same_numbers(spec: QuantSpec) -> None:
    x = tf.constant(numbers(spec)[:600].reshape(2, 300))
    np.testing.assert_array_equal(fake_quantize_learned(x, AMAX, spec), fake_quantize(x, AMAX, spec))


def test_image_sizes_that_are_known_only_at_run_time() -> None:
    """A fully convolutional network: g is computed from the image at hand."""
    spec = QuantSpec()

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 2), tf.float32)])
    def slope(x: Any) -> Any:
        amax = tf.constant(AMAX)
        with tf.GradientTape() as tape:
            tape.watch(amax)
            total = tf.reduce_sum(fake_quantize_learned(x, amax, spec))
        return tape.gradient(total, amax)

    x = np.full((3, 4, 5, 2), 9.0, "float32")  # beyond the range: the slope to amax is 1
    assert float(slope(x)) == pytest.approx(127**2 * x.size / np.sqrt(4 * 5 * 2 * 127), rel=1e-5)


def test_half_precision_learns_its_range_in_float32() -> None:
    x = tf.cast(tf.constant([[0.3, 9.0]]), tf.bfloat16)
    amax = tf.constant(AMAX)
    with tf.GradientTape() as tape:
        tape.watch(amax)
        out = fake_quantize_learned(x, amax, QuantSpec())
    assert out.dtype == tf.bfloat16
    assert tape.gradient(out, amax).dtype == tf.float32


def test_the_gradient_to_a_kernel_is_exactly_one() -> None:
    spec = QuantSpec(narrow=True)
    kernel = tf.constant(np.random.default_rng(2).normal(0, 1, (3, 3, 4, 5)).astype("float32"))
    upstream = np.random.default_rng(3).normal(0, 1, kernel.shape).astype("float32")
    with tf.GradientTape() as tape:
        tape.watch(kernel)
        total = tf.reduce_sum(fake_quantize_kernel(kernel, (0, 1, 2), spec) * upstream)
    np.testing.assert_array_equal(tape.gradient(total, kernel), upstream)


def test_the_scale_of_a_kernel_follows_the_weights() -> None:
    """The largest weight of each channel stays on the grid's last step, however far it moves."""
    spec = QuantSpec(bits=4, narrow=True)
    kernel = np.random.default_rng(4).normal(0, 1, (6, 3)).astype("float32")
    for factor in (1.0, 0.01, 300.0):
        moved = kernel * np.float32(factor)
        rounded = np.asarray(fake_quantize_kernel(tf.constant(moved), (0,), spec))
        s = np.abs(moved.astype(np.float64)).max(axis=0) / 7
        np.testing.assert_allclose(rounded, s * np.rint(moved / s), rtol=1e-6)
        np.testing.assert_allclose(np.abs(rounded).max(axis=0), np.abs(moved).max(axis=0), rtol=1e-6)


# --- TensorFlow's own operation --------------------------------------------------------------------------------------


@by_spec()
@pytest.mark.parametrize("compiler", ["eager", "graph", "XLA"])
def test_the_fused_operation_equals_the_equation(spec: QuantSpec, compiler: str) -> None:
    x = tf.constant(numbers(spec))
    s = scale_of(tf.constant(AMAX), spec)

    def both(x: Any, s: Any, upstream: Any) -> Any:
        results = []
        for function in (round_to_grid, by_equation):
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = function(x, s, spec)
            results += [y, tape.gradient(y, x, upstream)]
        return results

    run = both if compiler == "eager" else tf.function(both, jit_compile=compiler == "XLA")
    upstream = tf.constant(np.random.default_rng(5).normal(0, 1, x.shape).astype("float32"))
    fused, fused_gradient, plain, plain_gradient = run(x, s, upstream)
    # The operation computes its scale from the end of the range, which may differ from s in the last bit.
    np.testing.assert_array_equal(np.rint(fused / s), np.rint(plain / s))
    np.testing.assert_allclose(fused, plain, rtol=2**-23)
    np.testing.assert_array_equal(fused_gradient, plain_gradient)


@by_spec("int8", "uint8", "int4", "int2")
def test_the_fused_operation_keeps_the_ends(spec: QuantSpec) -> None:
    """Exactly at an end, where the number is on the grid, the gradient is 1, as in the equation."""
    s = tf.constant(0.5)
    x = tf.constant([spec.q_min * 0.5, spec.q_max * 0.5])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = round_to_grid(x, s, spec)
    np.testing.assert_array_equal(y, x)
    np.testing.assert_array_equal(tape.gradient(y, x), [1.0, 1.0])


@pytest.mark.parametrize("function", [fake_quantize, fake_quantize_learned])
@pytest.mark.parametrize("traced", [False, True])
@by_spec("int8", "uint8", "int4")
def test_nan_stays_nan(spec: QuantSpec, function: Any, traced: bool) -> None:
    """NaN must stay visible, not be rounded away; XLA for CPUs loses it in any `tf.clip_by_value`."""

    def rounded(x: Any) -> Any:
        return function(x, AMAX, spec)

    out = (tf.function(rounded) if traced else rounded)(tf.constant([[np.nan, 0.5]])).numpy()
    assert np.isnan(out).tolist() == [[True, False]]


def test_scales_per_channel_take_the_equation() -> None:
    """TensorFlow's operation supports a single range only."""
    x = np.random.default_rng(6).normal(0, 1, (50, 2)).astype("float32")
    amax = keras.ops.convert_to_tensor(np.array([[0.5, 2.0]], "float32"))
    together = np.asarray(fake_quantize(tf.constant(x), amax, QuantSpec()))
    for channel, one in enumerate((0.5, 2.0)):
        s = np.float64(one) / 127
        expected = s * np.clip(np.rint(x[:, channel] / s), -128, 127)
        np.testing.assert_allclose(together[:, channel], expected, rtol=1e-6)


def test_outside_training_ties_are_those_of_a_division_as_in_the_engines() -> None:
    """Numbers that lie halfway between two steps are common where inputs lie on a grid of their own."""
    s = np.float32(1.1) / np.float32(127)
    x = (np.arange(-100, 100, dtype=np.float32) + np.float32(0.5)) * s
    layer = FakeQuantize(QuantSpec(), amax=float(np.float32(1.1)))
    steps = np.asarray(layer(x[np.newaxis], training=False))[0] / s
    np.testing.assert_allclose(steps, np.rint(x / s), atol=1e-3)
