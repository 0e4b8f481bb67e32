"""Ranges of kernels: the least squared error per output channel, and nothing else changed."""

import keras
import numpy as np
import pytest

from keras_qat import apply_placement, calibrate, plan, trace
from keras_qat.calibration import choose_weight_ranges
from keras_qat.errors import UserError
from keras_qat.layers import QuantizedConv2D, QuantizedDepthwiseConv2D
from keras_qat.types import QuantSpec

layers = keras.layers


def model_of(bits: int) -> keras.Model:
    """A convolution, a depthwise one with two kernels a channel, and float layers; heavy-tailed weights."""
    spec = QuantSpec(bits=bits, narrow=True)
    x = image = keras.Input((8, 8, 64), name="image")
    x = layers.BatchNormalization(name="bn")(QuantizedConv2D(5, 3, weight_spec=spec, name="conv")(x))
    x = QuantizedDepthwiseConv2D(3, depth_multiplier=2, weight_spec=spec, name="depthwise")(x)
    model = keras.Model(image, layers.Dense(2, name="float")(x), name="small")
    rng = np.random.default_rng(0)
    model.set_weights([rng.standard_t(3, w.shape).astype("float32") for w in model.weights])
    return model


def squared_error(w: np.ndarray, amax: float, q_max: int) -> float:
    s = amax / q_max
    return float(np.sum((w - s * np.clip(np.rint(w / s), -q_max, q_max)) ** 2))


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("name", ["conv", "depthwise"])
def test_mse_is_the_best_of_a_brute_force_search(bits: int, name: str) -> None:
    model = model_of(bits)
    q_max = 2 ** (bits - 1) - 1
    before = np.asarray(model.get_layer(name).kernel, np.float64)
    chosen = choose_weight_ranges(model, "mse")
    after = np.asarray(chosen.model.get_layer(name).kernel, np.float64)
    # Output channels last: (…, 5) of the convolution, (…, 5, 2) of the depthwise one.
    channels = 5 if name == "conv" else 10
    before, after = (w.reshape(-1, channels) for w in (before, after))
    assert chosen.kept[name].shape == (channels,)
    for channel, kept in enumerate(chosen.kept[name]):
        w = before[:, channel]
        least = min(squared_error(w, a * np.abs(w).max(), q_max) for a in np.linspace(0.2, 1, 81))
        assert squared_error(w, kept * np.abs(w).max(), q_max) <= least * (1 + 1e-6)
        np.testing.assert_allclose(after[:, channel], np.clip(w, -kept * np.abs(w).max(), kept * np.abs(w).max()))


def test_four_bits_clip_and_eight_hardly() -> None:
    four, eight = (np.mean(choose_weight_ranges(model_of(bits)).kept["conv"]) for bits in (4, 8))
    assert four < 0.8
    assert eight > 0.9


def test_absmax_and_the_rest_of_the_model_stay_as_they_are() -> None:
    model = model_of(4)
    before = model.get_weights()
    kept_all = choose_weight_ranges(model, "absmax")
    for old, new in zip(before, kept_all.model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    clipped = choose_weight_ranges(model, "mse").model
    for weight in clipped.weights:
        if "kernel" not in weight.name or "float" in weight.path:
            np.testing.assert_array_equal(weight, next(w for w in model.weights if w.path == weight.path))
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_channel_of_zeros_keeps_its_zeros() -> None:
    model = model_of(8)
    kernel, bias = model.get_layer("conv").get_weights()
    kernel[..., 2] = 0
    model.get_layer("conv").set_weights([kernel, bias])
    chosen = choose_weight_ranges(model)
    assert not np.asarray(chosen.model.get_layer("conv").kernel)[..., 2].any()


def test_output_of_four_bits_comes_nearer_to_float() -> None:
    rng = np.random.default_rng(1)
    x = keras.Input((8, 8, 16), name="image")
    model = keras.Model(x, layers.Conv2D(8, 3, name="conv")(x))
    model.set_weights([rng.standard_t(3, w.shape).astype("float32") for w in model.weights])
    images = rng.normal(size=(16, 8, 8, 16)).astype("float32")
    placement = plan(trace(model).graph, "onnxruntime", weight_bits=4)
    quantized = apply_placement(model, placement, calibrate(model, placement, [images]))
    expected = model.predict(images, verbose=0)
    errors = [
        float(np.mean((m.predict(images, verbose=0) - expected) ** 2))
        for m in (quantized, choose_weight_ranges(quantized).model)
    ]
    assert errors[1] < 0.9 * errors[0]


def test_unknown_method_lists_the_known() -> None:
    with pytest.raises(UserError, match=r"'max'.*absmax, mse"):
        choose_weight_ranges(model_of(8), "max")
