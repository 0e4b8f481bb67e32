"""Bias correction against means in NumPy: each layer keeps the mean of its float output, channel by channel."""

from typing import Any

import keras
import numpy as np
import pytest

from keras_qat import apply_placement, calibrate, correct_bias, plan, trace
from keras_qat.calibration import reestimate_batch_norms
from keras_qat.errors import DataError, UserError
from keras_qat.layers import QuantizedDense, register_quantized_layer
from keras_qat.placement import Overrides, Rule

layers = keras.layers


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).normal(0.3, 1, (64, 9, 7, 3)).astype("float32")


def _model(stem: list[Any], shape: tuple[int, ...] = (9, 7, 3)) -> keras.Model:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input(shape, name="image"), *stem], name="tested")
    rng = np.random.default_rng(1)
    for weight in model.weights:
        if "variance" not in weight.name:
            weight.assign(rng.normal(0.1, 0.5, weight.shape))
    return model


def _quantized(model: keras.Model, images: np.ndarray, weight_bits: int = 3) -> keras.Model:
    """Few bits, so that the shifts are far above rounding errors of the test."""
    placement = plan(trace(model).graph, "tensorrt", weight_bits=weight_bits)
    return apply_placement(model, placement, calibrate(model, placement, [images]))


def _mean(model: keras.Model, layer: str, images: np.ndarray, axis: tuple[int, ...] = (0, 1, 2)) -> np.ndarray:
    output = keras.Model(model.inputs[0], model.get_layer(layer).output)(images)
    return np.asarray(np.asarray(output, np.float64).mean(axis=axis))


@pytest.mark.parametrize(
    "layer",
    [
        layers.Conv2D(4, 3, padding="same", strides=2, name="first"),
        layers.DepthwiseConv2D(3, depth_multiplier=2, name="first"),
        layers.Conv2DTranspose(4, 3, strides=2, name="first"),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_first_layer_keeps_its_mean(layer: Any, images: np.ndarray) -> None:
    model = _model([layer])
    quantized = _quantized(model, images)
    correction = correct_bias(model, quantized, [images[:32], images[32:]])
    expected, before = _mean(model, "first", images), _mean(quantized, "first", images)
    np.testing.assert_allclose(correction.shifts["first"], before - expected, atol=1e-5)
    np.testing.assert_allclose(_mean(correction.model, "first", images), expected, atol=1e-5)
    assert np.abs(before - expected).max() > 1e-3, "there was something to correct"
    assert correction.images == 64


@pytest.mark.parametrize("kind", [layers.Conv1D, layers.Conv1DTranspose, layers.DepthwiseConv1D])
def test_a_first_layer_of_signals_keeps_its_mean(kind: Any, images: np.ndarray) -> None:
    signals = images.reshape(64, 63, 3)
    layer = kind(3, name="first") if kind is layers.DepthwiseConv1D else kind(4, 3, name="first")
    model = _model([layer], (63, 3))
    correction = correct_bias(model, _quantized(model, signals), [signals])
    expected = _mean(model, "first", signals, (0, 1))
    np.testing.assert_allclose(_mean(correction.model, "first", signals, (0, 1)), expected, atol=1e-5)
    assert np.abs(correction.shifts["first"]).max() > 1e-3


def test_layer_without_bias_is_corrected_in_its_batch_norm(images: np.ndarray) -> None:
    model = _model([layers.Conv2D(4, 3, use_bias=False, name="conv"), layers.BatchNormalization(name="norm")])
    correction = correct_bias(model, _quantized(model, images), [images])
    np.testing.assert_allclose(_mean(correction.model, "norm", images), _mean(model, "norm", images), atol=1e-5)


def test_activation_comes_after_the_correction(images: np.ndarray) -> None:
    """δ is that of the sums before the ReLU."""
    plain, active = (_model([layers.Conv2D(4, 3, activation=a, name="conv")]) for a in (None, "relu"))
    shifts = [correct_bias(m, _quantized(m, images), [images]).shifts["conv"] for m in (plain, active)]
    np.testing.assert_array_equal(*shifts)


def test_what_cannot_be_corrected_has_a_reason(images: np.ndarray) -> None:
    model = _model([layers.Conv2D(4, 3, use_bias=False, name="conv"), layers.ReLU(), layers.Conv2D(2, 1, name="last")])
    correction = correct_bias(model, _quantized(model, images), [images])
    assert list(correction.shifts) == ["last"]
    assert correction.skipped == {"conv": "it has no bias, and no batch norm of its own is behind it"}


def test_shared_layer_is_corrected_for_the_mean_of_its_calls(images: np.ndarray) -> None:
    keras.utils.set_random_seed(3)
    shared = layers.Conv2D(3, 3, padding="same", name="shared")
    x = keras.Input((9, 7, 3), name="image")
    model = keras.Model(x, shared(layers.ReLU(name="relu")(shared(x))))
    quantized = _quantized(model, images)
    correction = correct_bias(model, quantized, [images])
    assert list(correction.shifts) == ["shared"]
    assert correction.shifts["shared"].shape == (3,)


def test_calls_inside_a_nested_model_are_corrected_like_those_of_the_flat_one(images: np.ndarray) -> None:
    """Two calls, one on far brighter images. Pairing them the wrong way round would give other shifts."""
    keras.utils.set_random_seed(3)
    shared = layers.Conv2D(3, 3, padding="same", name="shared")
    bright, relu = layers.Rescaling(1.0, offset=50.0, name="bright"), layers.ReLU(name="relu")
    both = layers.Concatenate(name="both")
    x, pixels = keras.Input((9, 7, 3), name="image"), keras.Input((9, 7, 3), name="pixels")
    inner = keras.Model(pixels, [shared(pixels), shared(bright(pixels))], name="inner")
    a, b = inner(x)
    nested, flat = keras.Model(x, both([relu(b), a])), keras.Model(x, both([relu(shared(bright(x))), shared(x)]))
    shifts, expected = (correct_bias(m, _quantized(m, images), [images]).shifts["shared"] for m in (nested, flat))
    np.testing.assert_allclose(shifts, expected, rtol=1e-4)


def test_quantized_model_of_another_float_model(images: np.ndarray) -> None:
    model = _model([layers.Conv2D(4, 3, name="conv")])
    other = _model([layers.Conv2D(4, 3, name="other")])
    for repair in (correct_bias, reestimate_batch_norms):
        with pytest.raises(UserError, match=r"another float model\. Received: 'conv'"):
            repair(model, _quantized(other, images), [images])


def test_channels_first(images: np.ndarray) -> None:
    model = _model([layers.Conv2D(4, 3, data_format="channels_first", name="first")], shape=(3, 9, 7))
    moved = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    correction = correct_bias(model, _quantized(model, moved), [moved])
    expected = _mean(model, "first", moved, axis=(0, 2, 3))
    np.testing.assert_allclose(_mean(correction.model, "first", moved, axis=(0, 2, 3)), expected, atol=1e-5)


def test_the_callers_models_do_not_change(images: np.ndarray) -> None:
    model = _model([layers.Conv2D(4, 3, name="conv"), layers.ReLU(), layers.Conv2D(2, 3, name="last")])
    quantized = _quantized(model, images)
    before = [[w.copy() for w in m.get_weights()] for m in (model, quantized)]
    correction = correct_bias(model, quantized, [images])
    for m, weights in zip((model, quantized), before, strict=True):
        for now, then in zip(m.get_weights(), weights, strict=True):
            np.testing.assert_array_equal(now, then)
    assert [layer.name for layer in correction.model.layers] == [layer.name for layer in quantized.layers]
    assert len(model.get_layer("conv")._inbound_nodes) == 1


def test_bad_input(images: np.ndarray) -> None:
    model = _model([layers.Conv2D(4, 3, name="conv")])
    quantized = _quantized(model, images)
    with pytest.raises(DataError, match="Received: 0 images"):
        correct_bias(model, quantized, [])
    with pytest.raises(DataError, match=r"Received: a batch of shape \(64, 9, 7, 2\)"):
        correct_bias(model, quantized, [images[..., :2]])


class _Halved(layers.Dense):
    """A dense layer whose result is halved, bias and all."""

    def call(self, x: Any, training: bool | None = None) -> Any:
        return super().call(x, training=training) / 2


class _QuantizedHalved(QuantizedDense, _Halved):
    def call(self, x: Any, training: bool | None = None) -> Any:
        return super().call(x, training=training) / 2


def test_custom_layer_is_left_alone() -> None:
    register_quantized_layer(_Halved, _QuantizedHalved)
    model = _model([_Halved(3, name="halved")], shape=(5,))
    samples = np.random.default_rng(0).normal(size=(16, 5)).astype("float32")
    correction = correct_bias(model, _quantized(model, samples), [samples])
    assert correction.skipped == {"halved": "what a _QuantizedHalved does with its bias isn't known"}


def test_shared_batch_norm_is_left_alone(images: np.ndarray) -> None:
    keras.utils.set_random_seed(0)
    norm = layers.BatchNormalization(name="norm")
    x = keras.Input((9, 7, 3), name="image")
    branches = [norm(layers.Conv2D(4, 3, use_bias=False, name=name)(x)) for name in "ab"]
    model = keras.Model(x, layers.Add()(branches))
    correction = correct_bias(model, _quantized(model, images), [images])
    assert set(correction.skipped.values()) == {"it has no bias, and other layers share the batch norm behind it"}


def test_nothing_quantized_and_empty_batches(images: np.ndarray) -> None:
    model = _model([layers.Conv2D(4, 3, name="conv")])
    everything_float = plan(
        trace(model).graph, "tensorrt", overrides=Overrides(rules=(Rule("*", weights=False, inputs=False),))
    )
    assert correct_bias(model, apply_placement(model, everything_float, {}), [images]).shifts == {}
    quantized = _quantized(model, images)
    whole, with_empty = (correct_bias(model, quantized, b) for b in ([images], [images, images[:0]]))
    np.testing.assert_array_equal(whole.shifts["conv"], with_empty.shifts["conv"])


@pytest.mark.parametrize("structure", [list, dict])
def test_both_branches_of_two_inputs_are_corrected(structure: Any, images: np.ndarray) -> None:
    """By order and by name, whose order isn't that of the branches."""
    keras.utils.set_random_seed(4)
    wide, narrow = keras.Input((9, 7, 3), name="wide"), keras.Input((3,), name="narrow")
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, name="conv")(wide))
    y = layers.Concatenate()([x, layers.Dense(5, name="dense")(narrow)])
    inputs = [wide, narrow] if structure is list else {"wide": wide, "narrow": narrow}
    model = keras.Model(inputs, layers.Dense(2, name="last")(y))
    rows = images.mean(axis=(1, 2)) * 3
    data = [[images, rows]] if structure is list else {"narrow": rows, "wide": images}
    placement = plan(trace(model).graph, "tensorrt", weight_bits=3)
    quantized = apply_placement(model, placement, calibrate(model, placement, data))
    correction = correct_bias(model, quantized, data)
    assert list(correction.shifts) == ["conv", "dense", "last"]
    assert reestimate_batch_norms(model, quantized, data).images == len(images)

    def mean(network: keras.Model, name: str, axis: tuple[int, ...]) -> np.ndarray:
        probe = keras.Model(network.inputs, network.get_layer(name).output)
        arrays = {"wide": images, "narrow": rows}
        output = probe([arrays[given.name] for given in network.inputs])
        return np.asarray(np.asarray(output, np.float64).mean(axis=axis))

    for name, axis in (("conv", (0, 1, 2)), ("dense", (0,))):
        assert np.abs(mean(quantized, name, axis) - mean(model, name, axis)).max() > 1e-3
        np.testing.assert_allclose(mean(correction.model, name, axis), mean(model, name, axis), atol=1e-5)
