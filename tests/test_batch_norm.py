"""Batch norms re-estimated: the output of each has the mean and variance that it had in float."""

import keras
import numpy as np
import pytest

from keras_qat import apply_placement, calibrate, plan, trace
from keras_qat.calibration import reestimate_batch_norms
from keras_qat.errors import DataError

layers = keras.layers


def network() -> keras.Model:
    """Two normalized convolutions, one without; statistics as after training."""
    x = image = keras.Input((9, 7, 3), name="image")
    x = layers.BatchNormalization(name="first_bn")(layers.Conv2D(6, 3, name="first")(x))
    x = layers.ReLU(name="relu")(x)
    x = layers.BatchNormalization(name="second_bn")(layers.DepthwiseConv2D(3, use_bias=False, name="second")(x))
    model = keras.Model(image, layers.Dense(2, name="last")(x), name="network")
    rng = np.random.default_rng(0)
    for weight in model.weights:
        positive = "variance" in weight.name or "gamma" in weight.name
        weight.assign(rng.uniform(0.5, 1.5, weight.shape) if positive else rng.normal(0, 0.4, weight.shape))
    return model


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(1).normal(0.3, 1, (40, 9, 7, 3)).astype("float32")


def quantized_of(model: keras.Model, images: np.ndarray) -> keras.Model:
    """Quantize coarsely, with 3 bits of weights and ranges that clip, so that there is something to repair."""
    placement = plan(trace(model).graph, "tensorrt", weight_bits=3)
    return apply_placement(model, placement, calibrate(model, placement, [images], method="percentile"))


def moments(model: keras.Model, layer: str, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    y = np.asarray(keras.Model(model.input, model.get_layer(layer).output)(images), np.float64)
    return y.mean(axis=(0, 1, 2)), y.var(axis=(0, 1, 2))


def test_output_of_the_first_norm_is_as_in_float(images: np.ndarray) -> None:
    """The first layer reads the same rounded images in the measurement and in the network, so it is exact there."""
    model = network()
    quantized = quantized_of(model, images)
    renewed = reestimate_batch_norms(model, quantized, [images[:30], images[30:]])
    mean, variance = moments(model, "first_bn", images)
    before, after = moments(quantized, "first_bn", images), moments(renewed.model, "first_bn", images)
    assert np.abs(before[0] - mean).max() > 0.01
    np.testing.assert_allclose(after[0], mean, atol=1e-4)
    np.testing.assert_allclose(after[1], variance, rtol=1e-4)
    assert renewed.images == 40


def test_what_changed_is_reported_and_nothing_else_changes(images: np.ndarray) -> None:
    model = network()
    quantized = quantized_of(model, images)
    weights = [w.copy() for w in quantized.get_weights()]
    renewed = reestimate_batch_norms(model, quantized, [images])
    assert list(renewed.shifts) == list(renewed.ratios) == ["first", "second"]
    assert renewed.skipped == {"last": "no batch norm of its own is behind it"}
    norm, old = (m.get_layer("second_bn") for m in (renewed.model, quantized))
    spread = renewed.ratios["second"] * (np.asarray(old.moving_variance) + 1e-3)
    np.testing.assert_allclose(np.asarray(norm.moving_variance) + 1e-3, spread, rtol=1e-5)
    for weight in renewed.model.weights:
        if "moving" not in weight.name:
            np.testing.assert_array_equal(weight, next(w for w in quantized.weights if w.path == weight.path))
    for old_weight, new in zip(weights, quantized.get_weights(), strict=True):
        np.testing.assert_array_equal(old_weight, new)


def test_constant_channel_keeps_its_variance(images: np.ndarray) -> None:
    model = network()
    kernel, bias = model.get_layer("first").get_weights()
    kernel[..., 2] = 0
    model.get_layer("first").set_weights([kernel, bias])
    renewed = reestimate_batch_norms(model, quantized_of(model, images), [images])
    assert renewed.ratios["first"][2] == 1
    assert all(np.isfinite(w).all() for w in renewed.model.get_weights())


def test_no_images(images: np.ndarray) -> None:
    model = network()
    with pytest.raises(DataError, match="Received: 0 images"):
        reestimate_batch_norms(model, quantized_of(model, images), [])
