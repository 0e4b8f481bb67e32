"""The arithmetic of fake quantization and the layers that use it, compared with NumPy in float64."""

import inspect
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_qat.layers
from keras_qat.errors import UnsupportedModelError
from keras_qat.layers import (
    FakeQuantize,
    QuantizedConv2D,
    QuantizedDense,
    QuantizedDepthwiseConv2D,
    fake_quantize,
    fake_quantize_kernel,
    quantized_layer,
    register_quantized_layer,
    scale_of,
)
from keras_qat.types import QuantSpec

SPECS = {
    "int8": (QuantSpec(), -128, 127),
    "narrow int8": (QuantSpec(narrow=True), -127, 127),
    "uint8": (QuantSpec(signed=False, storage="uint8"), 0, 255),
    "signed in uint8": (QuantSpec(storage="uint8"), -128, 127),
    "int4": (QuantSpec(bits=4), -8, 7),
    "narrow int4": (QuantSpec(bits=4, narrow=True), -7, 7),
    "int2": (QuantSpec(bits=2), -2, 1),
}
WEIGHTS = QuantSpec(narrow=True, axis=3)


def by_spec(*names: str) -> pytest.MarkDecorator:
    chosen = names or tuple(SPECS)
    return pytest.mark.parametrize(("spec", "q_min", "q_max"), [SPECS[n] for n in chosen], ids=chosen)


def reference(x: np.ndarray, amax: Any, q_min: int, q_max: int) -> tuple[np.ndarray, np.ndarray]:
    """The equation in float64: (x̂, scale). `np.rint` rounds half to even."""
    s = np.asarray(amax, np.float64) / q_max
    return s * np.clip(np.rint(np.asarray(x, np.float64) / s), q_min, q_max), s


def quantized_weights(kernel: np.ndarray, axes: tuple[int, ...], q_max: int = 127) -> np.ndarray:
    """A kernel rounded per output channel, float64."""
    amax = np.abs(kernel.astype(np.float64)).max(axis=axes, keepdims=True)
    s = np.where(amax == 0, 1.0, amax) / q_max
    return s * np.clip(np.rint(kernel / s), -q_max, q_max)


def run(x: Any, amax: Any, spec: QuantSpec) -> np.ndarray:
    return keras.ops.convert_to_numpy(fake_quantize(keras.ops.convert_to_tensor(x, "float32"), amax, spec))


def test_package_gives_the_function_that_it_lists() -> None:
    """`from keras_qat.layers import fake_quantize` is the function, not a module of the same name."""
    assert keras_qat.layers.fake_quantize is fake_quantize
    assert not any(inspect.ismodule(getattr(keras_qat.layers, name)) for name in keras_qat.layers.__all__)


# --- arithmetic -------------------------------------------------------------------------------------------------------


@by_spec()
def test_equals_the_equation_in_float64(spec: QuantSpec, q_min: int, q_max: int) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(0, 2, 20_000).astype("float32")
    expected, s = reference(x, 3.7, q_min, q_max)
    # float32 division may land on the other side of a rounding boundary: one step, and only next to the boundary.
    tie = np.abs(np.abs(x / s - np.floor(x / s)) - 0.5) < 1e-3
    difference = np.abs(run(x, 3.7, spec) - expected) / s
    assert difference[~tie].max() < 1e-3
    assert difference.max() < 1 + 1e-3


@by_spec("int8", "uint8")
def test_rounds_half_to_even(spec: QuantSpec, q_min: int, q_max: int) -> None:
    """Scale 1, so the halves are exact: 0.5 → 0, 1.5 → 2, 2.5 → 2, as in ONNX QuantizeLinear."""
    x = np.array([0.5, 1.5, 2.5, 3.5, 100.5, 101.5])
    assert run(x, float(q_max), spec).tolist() == [0, 2, 2, 4, 100, 102]
    if q_min < 0:
        assert run(-x, float(q_max), spec).tolist() == [0, -2, -2, -4, -100, -102]


@by_spec()
def test_saturates_at_both_ends(spec: QuantSpec, q_min: int, q_max: int) -> None:
    """With amax = q_max the scale is 1 and the numbers are the integers themselves."""
    x = [-1e30, -1e4, q_min - 0.6, q_max + 0.6, 1e4, 1e30]
    assert run(x, float(q_max), spec).tolist() == [q_min] * 3 + [q_max] * 3


@by_spec()
def test_keeps_zero_and_amax_exactly(spec: QuantSpec, q_min: int, q_max: int) -> None:  # noqa: ARG001
    assert run([0.0], 3.7, spec).item() == 0
    assert run([3.7], 3.7, spec).item() == pytest.approx(3.7, rel=1e-6)


@by_spec()
def test_idempotent(spec: QuantSpec, q_min: int, q_max: int) -> None:  # noqa: ARG001
    """A second Q/DQ pair changes nothing: numbers on the grid stay where they are."""
    once = run(np.random.default_rng(1).normal(0, 1, 1000), 1.3, spec)
    np.testing.assert_array_equal(run(once, 1.3, spec), once)


@by_spec()
def test_at_most_as_many_numbers_as_the_width_allows(spec: QuantSpec, q_min: int, q_max: int) -> None:
    values = np.unique(run(np.linspace(-2, 2, 5000), 1.0, spec))
    assert len(values) == q_max - q_min + 1
    np.testing.assert_allclose(np.diff(values), 1.0 / q_max, rtol=1e-4)


@by_spec()
def test_range_of_an_all_zero_tensor(spec: QuantSpec, q_min: int, q_max: int) -> None:  # noqa: ARG001
    """With amax 0, zeros stay exactly zero, and all other numbers become smaller than 1e-29."""
    assert run(np.zeros(4), 0.0, spec).tolist() == [0, 0, 0, 0]
    others = run([1.0, -1.0, 1e20, -1e20], 0.0, spec)
    assert np.isfinite(others).all()
    assert np.abs(others).max() < 1e-29


def test_zero_channel_beside_others() -> None:
    x = np.array([[0.0, 0.5], [0.0, -1.0]], "float32")
    assert run(x, np.array([[0.0, 1.0]], "float32"), QuantSpec(narrow=True)).tolist() == [
        [0.0, pytest.approx(64 / 127)],
        [0.0, -1.0],
    ]


def test_per_channel_amax_equals_channels_one_by_one() -> None:
    x = np.random.default_rng(2).normal(0, 1, (5, 3)).astype("float32")
    amax = np.array([[0.3, 1.0, 4.0]], "float32")
    together = run(x, amax, QuantSpec())
    for channel in range(3):
        np.testing.assert_array_equal(together[:, channel], run(x[:, channel], amax[0, channel], QuantSpec()))


def test_signed_in_uint8_is_the_same_numbers_as_int8() -> None:
    x = np.random.default_rng(3).normal(0, 1, 1000)
    np.testing.assert_array_equal(run(x, 2.0, QuantSpec(storage="uint8")), run(x, 2.0, QuantSpec()))


def test_graphs_compute_the_scales_and_integers_of_eager_code() -> None:
    """The optimizer of graphs replaces divisions by constants, which once moved a weight of ResNet50 by a step."""
    amax = np.random.default_rng(4).uniform(1e-3, 10, 20_000).astype("float32")
    weights = keras.Variable(np.stack([amax, (63.5 / 127) * amax, (0.5 / 127) * amax]).astype("float32"))
    for spec in (QuantSpec(narrow=True), QuantSpec(signed=False, storage="uint8")):
        limits = keras.Variable(amax)
        compiled = tf.function(lambda limits=limits, spec=spec: scale_of(limits, spec))
        np.testing.assert_array_equal(compiled().numpy(), scale_of(limits, spec).numpy())

    def rounded() -> Any:
        return fake_quantize_kernel(weights.value, (0,), QuantSpec(narrow=True))

    np.testing.assert_array_equal(tf.function(rounded)().numpy(), rounded().numpy())


def test_unsigned_halves_the_step() -> None:
    assert float(scale_of(1.0, QuantSpec(signed=False, storage="uint8"))) == pytest.approx(1 / 255)
    assert float(scale_of(1.0, QuantSpec())) == pytest.approx(1 / 127)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_stays_finite(dtype: str) -> None:
    """Mixed precision: an all-zero tensor divides by its scale too."""
    x = keras.ops.cast(keras.ops.array([0.0, 1.0, -1.0]), dtype)
    for amax in (0.0, 1.0):
        rounded = fake_quantize(x, keras.ops.cast(amax, dtype), QuantSpec())
        assert keras.backend.standardize_dtype(rounded.dtype) == dtype
        assert np.isfinite(keras.ops.convert_to_numpy(keras.ops.cast(rounded, "float32"))).all()


@by_spec("int8", "narrow int8", "uint8", "int4")
def test_gradient_is_one_inside_and_zero_outside(spec: QuantSpec, q_min: int, q_max: int) -> None:
    """The gradient passes straight through inside the range; a saturated number gets none."""
    s = 2.0 / q_max
    low, high = q_min * s, q_max * s
    x = tf.Variable(np.array([low - 1.0, low - 0.3, 0.5 * high, 0.123, high + 0.01, high + 5.0], "float32"))
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(fake_quantize(x, 2.0, spec) * tf.constant([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]))
    assert tape.gradient(total, x).numpy().tolist() == [0, 0, 3, 4, 0, 0]


@by_spec("int8", "uint8")
def test_forward_inside_a_tape_is_the_rounded_number(spec: QuantSpec, q_min: int, q_max: int) -> None:
    x = tf.constant(np.random.default_rng(4).normal(0, 1, 500).astype("float32"))
    compiled = tf.function(lambda t: fake_quantize(t, 1.5, spec))
    with tf.GradientTape() as tape:
        tape.watch(x)
        traced = compiled(x)
    expected, s = reference(x.numpy(), 1.5, q_min, q_max)
    assert np.median(np.abs(traced.numpy() - expected) / s) < 1e-5
    np.testing.assert_array_equal(traced.numpy(), run(x.numpy(), 1.5, spec))


# --- QuantSpec --------------------------------------------------------------------------------------------------------


@by_spec()
def test_integers_of_a_spec(spec: QuantSpec, q_min: int, q_max: int) -> None:
    assert (spec.q_min, spec.q_max) == (q_min, q_max)
    stored = {"int8": (-128, 127), "uint8": (0, 255)}[spec.storage]
    assert stored[0] <= q_min + spec.zero_point <= q_max + spec.zero_point <= stored[1]


@pytest.mark.parametrize("bits", [-1, 0, 1, 9, 16])
def test_spec_refuses_a_width(bits: int) -> None:
    with pytest.raises(ValueError, match=f"Received: bits={bits}"):
        QuantSpec(bits=bits)


def test_spec_refuses_unsigned_8_bits_in_int8() -> None:
    with pytest.raises(ValueError, match=r"storage='uint8'"):
        QuantSpec(signed=False, storage="int8")
    assert QuantSpec(bits=7, signed=False, storage="int8").q_max == 127


# --- FakeQuantize -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("amax", [float("nan"), float("inf"), float("-inf"), -1.0])
def test_fake_quantize_refuses_a_range(amax: float) -> None:
    with pytest.raises(ValueError, match=r"'edge' must be finite.*Received: amax="):
        FakeQuantize(QuantSpec(), amax, name="edge")


def test_fake_quantize_holds_its_range_as_one_untrainable_weight() -> None:
    layer = FakeQuantize(QuantSpec(), 2.5)
    layer.build((None, 4))
    assert len(layer.weights) == 1
    assert layer.trainable_weights == []
    assert float(layer.weights[0]) == 2.5
    layer.set_weights([np.array(127.0)])
    assert layer(np.array([[1.4, 300.0]], "float32")).numpy().tolist() == [[1.0, 127.0]]


def test_fake_quantize_comes_back_from_its_config() -> None:
    layer = FakeQuantize(SPECS["uint8"][0], 2.5, name="edge")
    again = FakeQuantize.from_config(layer.get_config())
    assert (again.name, again.spec, again.initial_amax) == ("edge", layer.spec, 2.5)


def test_fake_quantize_keeps_shape_and_dtype() -> None:
    for shape in [(2, 3), (2, 4, 4, 3)]:
        out = FakeQuantize(QuantSpec(), 1.0)(np.zeros(shape, "float32"))
        assert (tuple(out.shape), out.dtype.name) == (shape, "float32")


# --- layers with quantized weights ------------------------------------------------------------------------------------


WEIGHTED = {
    "conv": (keras.layers.Conv2D, QuantizedConv2D, {"filters": 5, "kernel_size": 3}, (2, 8, 8, 3), (0, 1, 2)),
    "strided conv": (
        keras.layers.Conv2D,
        QuantizedConv2D,
        {"filters": 4, "kernel_size": 3, "strides": 2, "padding": "same", "activation": "relu", "use_bias": False},
        (2, 8, 8, 3),
        (0, 1, 2),
    ),
    "grouped conv": (
        keras.layers.Conv2D,
        QuantizedConv2D,
        {"filters": 4, "kernel_size": 3, "groups": 2},
        (2, 8, 8, 4),
        (0, 1, 2),
    ),
    "depthwise": (
        keras.layers.DepthwiseConv2D,
        QuantizedDepthwiseConv2D,
        {"kernel_size": 3, "depth_multiplier": 2},
        (2, 8, 8, 3),
        (0, 1),
    ),
    "strided depthwise": (
        keras.layers.DepthwiseConv2D,
        QuantizedDepthwiseConv2D,
        {"kernel_size": 3, "strides": 2, "padding": "same", "activation": "relu", "use_bias": False},
        (2, 8, 8, 3),
        (0, 1),
    ),
    "dense": (keras.layers.Dense, QuantizedDense, {"units": 4}, (3, 6), (0,)),
    "dense softmax": (
        keras.layers.Dense,
        QuantizedDense,
        {"units": 4, "activation": "softmax", "use_bias": False},
        (3, 6),
        (0,),
    ),
}


@pytest.mark.parametrize("case", WEIGHTED)
@pytest.mark.parametrize("bits", [8, 4])
def test_weighted_layer_computes_with_rounded_weights(case: str, bits: int) -> None:
    """Compared with the float layer, whose kernel NumPy has rounded per output channel."""
    float_type, quantized_type, config, shape, axes = WEIGHTED[case]
    rng = np.random.default_rng(5)
    x = rng.normal(0, 1, shape).astype("float32")
    plain = float_type(**config, bias_initializer="normal", name="layer")
    plain.build(shape)
    layer = quantized_layer(plain, QuantSpec(bits=bits, narrow=True, axis=len(plain.kernel.shape) - 1), "layer")
    assert type(layer) is quantized_type
    layer.build(shape)

    # Twice, so that the scales must follow; channels of very different size, so that they must be per channel.
    for size in (1.0, 10.0):
        spread = 10.0 ** rng.uniform(-2, 1, plain.kernel.shape[-1])
        kernel = (rng.normal(0, size, plain.kernel.shape) * spread).astype("float32")
        rest = [np.asarray(w) for w in plain.get_weights()[1:]]
        layer.set_weights([kernel, *rest])
        plain.set_weights([quantized_weights(kernel, axes, (1 << bits - 1) - 1).astype("float32"), *rest])
        expected = np.asarray(plain(x))
        np.testing.assert_allclose(np.asarray(layer(x)), expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
        np.testing.assert_array_equal(layer.get_weights()[0], kernel)


def test_rounded_weights_never_reach_minus_128() -> None:
    """So that folding a negative batch norm can flip the sign of the integers."""
    layer = QuantizedDense(2, weight_spec=QuantSpec(narrow=True, axis=1))
    layer.build((None, 3))
    kernel = np.array([[-1.0, 0.2], [0.5, -4.0], [0.1, 1.0]], "float32")
    steps = np.asarray(layer.quantized_kernel(keras.ops.array(kernel))) / (np.abs(kernel).max(axis=0) / 127)
    np.testing.assert_allclose(steps, np.rint(steps), atol=1e-4)
    assert np.rint(steps).min() == -127


def test_channel_of_zeros_stays_zero() -> None:
    """A pruned channel: its scale would be 0."""
    layer = QuantizedConv2D(2, 3, weight_spec=WEIGHTS, use_bias=False)
    layer.build((None, 8, 8, 3))
    kernel = np.random.default_rng(6).normal(0, 1, (3, 3, 3, 2)).astype("float32")
    kernel[..., 1] = 0
    layer.set_weights([kernel])
    out = np.asarray(layer(np.ones((1, 8, 8, 3), "float32")))
    assert np.isfinite(out).all()
    assert (out[..., 1] == 0).all()


def test_gradient_reaches_every_weight() -> None:
    """Weights lie within their own range, so the straight-through gradient is the float layer's."""
    x = np.random.default_rng(7).normal(0, 1, (4, 6)).astype("float32")
    layer = QuantizedDense(3, weight_spec=QuantSpec(narrow=True, axis=1))
    layer.build((None, 6))
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(layer(x))
    gradient = tape.gradient(total, layer.kernel.value)
    np.testing.assert_allclose(gradient, np.repeat(x.sum(axis=0)[:, None], 3, axis=1), rtol=1e-5)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (QuantizedDense, {"units": 4}),
        (QuantizedConv2D, {"filters": 4, "kernel_size": 3}),
        (QuantizedDepthwiseConv2D, {"kernel_size": 3}),
    ],
)
def test_mixed_precision_rounds_to_the_integers_of_float32(kind: Any, options: dict[str, Any], bits: int) -> None:
    """A kernel that is first cast to bfloat16 would be rounded to other integers."""
    spec = QuantSpec(bits=bits, narrow=True)
    # Each input is zero but for one number: the outputs are the numbers of the kernel one by one.
    x = np.eye(36, dtype="float32")
    x = x if kind is QuantizedDense else x.reshape(36, 3, 3, 4)
    integers = {}
    for policy in ("float32", "mixed_bfloat16"):
        layer = kind(**options, use_bias=False, weight_spec=spec, dtype=policy)
        layer.build(x.shape)
        kernel = np.random.default_rng(8).normal(0, 1, layer.kernel.shape).astype("float32")
        layer.set_weights([kernel])
        out = layer(x)
        assert keras.backend.standardize_dtype(out.dtype) == layer.compute_dtype
        assert keras.backend.standardize_dtype(layer.kernel.dtype) == "float32"
        s = np.abs(kernel).max(axis=layer.kernel_reduce_axes, keepdims=True).reshape(-1) / spec.q_max
        integers[policy] = np.rint(np.asarray(keras.ops.cast(out, "float32"), np.float64) / s)
    assert np.abs(integers["float32"]).max() == spec.q_max
    np.testing.assert_array_equal(integers["mixed_bfloat16"], integers["float32"])


@pytest.mark.parametrize("case", WEIGHTED)
def test_quantized_layer_keeps_config_and_leaves_the_float_layer_alone(case: str) -> None:
    float_type, _, config, shape, _ = WEIGHTED[case]
    plain = float_type(**config, bias_regularizer="l2", trainable=False, name="mine")
    plain.build(shape)
    weights = plain.get_weights()
    layer = quantized_layer(plain, WEIGHTS, "mine")
    assert not layer.built
    theirs = plain.get_config()
    ours = layer.get_config()
    assert QuantSpec(**ours.pop("weight_spec")) == WEIGHTS
    assert ours == theirs
    again = type(layer).from_config(layer.get_config())
    assert again.weight_spec == WEIGHTS
    for before, after in zip(weights, plain.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


class MyConv(keras.layers.Conv2D):
    """A user's subclass, which computes something else than a convolution."""

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        return super().convolution_op(inputs, kernel - 1.0)


class MyQuantizedConv(QuantizedConv2D):
    """The quantized layer that the user registers for it."""


def test_subclass_that_computes_otherwise_must_be_registered() -> None:
    layer = MyConv(2, 3, name="mine")
    with pytest.raises(UnsupportedModelError, match=r"'mine'.*a MyConv.*Conv2D.*register_quantized_layer"):
        quantized_layer(layer, WEIGHTS, "mine")
    register_quantized_layer(MyConv, MyQuantizedConv)
    made = quantized_layer(layer, WEIGHTS, "mine")
    assert type(made) is MyQuantizedConv
    assert (made.filters, made.weight_spec) == (2, WEIGHTS)
