"""Preprocessing against Keras's own and against Pillow."""

import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image

from keras_qat.data import ImageSet, Mode, Preprocessing
from keras_qat.errors import UserError
from keras_qat.types import Normalization

CUSTOM = {"reverse_channels": False, "divisor": [58.0, 57.0, 57.5], "offset": [2.0, 2.1, 1.8]}


def _smooth_picture(height: int, width: int) -> np.ndarray:
    random = np.random.default_rng(3)
    coarse = random.integers(0, 256, (6, 7, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


@pytest.mark.parametrize(
    ("mode", "reference"),
    [
        ("caffe", keras.applications.resnet.preprocess_input),
        ("tf", keras.applications.resnet_v2.preprocess_input),
        ("torch", keras.applications.densenet.preprocess_input),
        ("raw", keras.applications.efficientnet.preprocess_input),
    ],
)
def test_normalize_is_that_of_keras_applications(mode: str, reference: Callable[[Any], Any]) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3)).astype(np.float32)
    ours = Preprocessing(mode, 4, 4).normalize(images)
    np.testing.assert_allclose(ours, reference(images.copy()), atol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(150, 97), (97, 150), (64, 64), (32, 20), (20, 33)])
def test_resize_and_crop_are_those_of_pillow(height: int, width: int) -> None:
    picture = _smooth_picture(height, width)
    scale = 40 / min(height, width)
    rows, columns = (40 if side == min(height, width) else round(side * scale) for side in (height, width))
    resized = Image.fromarray(picture).resize((columns, rows), Image.Resampling.BILINEAR)
    left, top = (columns - 32) // 2, (rows - 32) // 2
    expected = np.asarray(resized.crop((left, top, left + 32, top + 32)), np.float32) / 127.5 - 1

    ours = Preprocessing("tf", size=32, resize=40).prepare(picture)

    assert ours.shape == (32, 32, 3)
    # Pillow rounds to whole gray levels after each of its two passes.
    np.testing.assert_allclose(ours, expected, atol=1.5 / 127.5)


def test_unit_is_keras_rescaling() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3)).astype(np.float32)
    ours = Preprocessing("unit", 4, 4).normalize(images)
    np.testing.assert_allclose(ours, keras.layers.Rescaling(1 / 255)(images), atol=1e-7)
    assert (float(ours.numpy().min()) >= 0, float(ours.numpy().max()) <= 1) == (True, True)


def test_a_square_image_of_the_right_size_is_left_alone() -> None:
    picture = _smooth_picture(16, 16)
    np.testing.assert_allclose(Preprocessing("tf", 16, 16).prepare(picture), picture / np.float32(127.5) - 1, atol=1e-6)


def test_for_size_crops_nothing() -> None:
    small = Preprocessing("caffe", size=224, resize=256).for_size(32)
    assert small == Preprocessing("caffe", size=32, resize=32)


def test_dict_round_trip_through_json() -> None:
    gray = Preprocessing("unit", 28, 28, channels=1)
    for preprocessing in (Preprocessing("tf", size=299, resize=342), Preprocessing("torch", 224, 256, True), gray):
        assert Preprocessing.from_dict(json.loads(json.dumps(preprocessing.to_dict()))) == preprocessing


def test_what_was_written_before_whole_pixels_is_read() -> None:
    assert Preprocessing.from_dict({"mode": "caffe", "size": 224, "resize": 256}) == Preprocessing("caffe", 224, 256)


def test_modes_of_resnets_compute_what_they_always_did() -> None:
    pixels = np.random.default_rng(0).uniform(0, 255, (4, 5, 3)).astype(np.float32)
    mean = np.array([103.939, 116.779, 123.68], np.float32)
    np.testing.assert_array_equal(Preprocessing("caffe", 4, 4).normalize(pixels), pixels[..., ::-1] - mean)
    in_tf = pixels / np.float32(127.5) - np.float32(1)
    np.testing.assert_array_equal(Preprocessing("tf", 4, 4).normalize(pixels), in_tf)


@pytest.mark.parametrize("mode", ["caffe", "tf", "torch", "raw", "unit"])
def test_a_pipeline_normalizes_as_its_value_says(mode: Mode) -> None:
    """Bit for bit: a file computes y = x' / divisor - offset by that value, and Keras sees what the pipeline gives."""
    picture = np.random.default_rng(2).integers(0, 256, (1, 16, 16, 3), dtype=np.uint8)
    data = ImageSet.from_arrays("one", picture, [0], Preprocessing(mode, 16, 16, whole_pixels=True))
    n = data.preprocessing.normalization
    x = picture[..., ::-1] if n.reverse_channels else picture
    expected = x.astype(np.float32) / np.float32(n.divisor) - np.float32(n.offset)
    (images, _), *_ = data.arrays(1)
    np.testing.assert_array_equal(images, expected)


@pytest.mark.parametrize("mode", ["caffe", "tf", "torch", "unit"])
def test_whole_pixels_normalized_are_what_keras_reads(mode: Mode) -> None:
    picture = _smooth_picture(50, 41)
    whole = Preprocessing(mode, size=32, resize=36, whole_pixels=True)
    pixels = np.asarray(whole.raw().prepare(picture))
    np.testing.assert_array_equal(pixels, np.rint(pixels))
    assert (pixels.min() >= 0, pixels.max() <= 255) == (True, True)
    exact = np.asarray(Preprocessing("raw", size=32, resize=36).prepare(picture))
    assert np.abs(pixels - exact).max() <= 0.5
    np.testing.assert_array_equal(whole.prepare(picture), whole.normalize(pixels.astype(np.uint8)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("caffe:224:256", Preprocessing("caffe", 224, 256)),
        ("torch:224", Preprocessing("torch", 224, 224)),
        ("raw:32:32", Preprocessing("raw", 32, 32)),
        ("unit:28", Preprocessing("unit", 28, 28)),
        ("unit:28:gray", Preprocessing("unit", 28, 28, channels=1)),
        ("tf:28:32:gray", Preprocessing("tf", 28, 32, channels=1)),
        ("unit:96x160", Preprocessing("unit", (96, 160), 96)),
        ("unit:96x160:110", Preprocessing("unit", (96, 160), 110)),
        ("raw:96x96", Preprocessing("raw", 96, 96)),
        ("tf:160x96:squash", Preprocessing("tf", (160, 96), 96, fit="squash")),
        ("tf:96:letterbox", Preprocessing("tf", 96, 96, fit="letterbox")),
        ("tf:96:letterbox=114:gray", Preprocessing("tf", 96, 96, fit="letterbox", fill=114, channels=1)),
        ("tf:96:gray:squash", Preprocessing("tf", 96, 96, fit="squash", channels=1)),
        ("tf:96:110:bicubic:aliased", Preprocessing("tf", 96, 110, interpolation="bicubic", antialias=False)),
        (
            "custom:8:divisor=58,57,57.5:offset=2,2.1,-1.8e-1:bgr",
            Preprocessing("custom", 8, 8, custom=Normalization(True, (58.0, 57.0, 57.5), (2.0, 2.1, -0.18))),
        ),
        ("custom:8:divisor=255", Preprocessing("custom", 8, 8, custom=Normalization(False, (255.0,) * 3, (0.0,) * 3))),
        (
            "custom:8:offset=0.5:gray",
            Preprocessing("custom", 8, 8, channels=1, custom=Normalization(False, (1.0,), (0.5,))),
        ),
    ],
)
def test_command_lines_spell_preprocessing(text: str, expected: Preprocessing) -> None:
    assert Preprocessing.parse(text) == expected
    assert Preprocessing.parse(str(expected)) == expected
    assert Preprocessing.from_dict(json.loads(json.dumps(expected.to_dict()))) == expected
    assert eval(repr(expected)) == expected  # noqa: S307 - a value's own text


def test_what_a_photo_classifier_needs_is_written_as_it_always_was() -> None:
    preprocessing = Preprocessing("caffe", 224, 256)
    assert preprocessing.to_dict() == {
        "mode": "caffe",
        "size": 224,
        "resize": 256,
        "whole_pixels": False,
        "channels": 3,
    }
    assert str(preprocessing) == "caffe:224:256"
    assert repr(preprocessing) == ("Preprocessing(mode='caffe', size=224, resize=256, whole_pixels=False, channels=3)")


def test_a_normalization_of_its_own_is_that_of_numpy() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    scaled = Preprocessing.parse("custom:4x5:divisor=58,57,57.5:offset=2,2.1,-1.8:bgr").normalize(pixels)
    expected = pixels[..., ::-1].astype(np.float64) / [58, 57, 57.5] - [2, 2.1, -1.8]
    np.testing.assert_allclose(scaled, expected, atol=1e-6)


def test_a_normalization_alike_for_all_channels_serves_gray() -> None:
    rgb = Preprocessing.parse("custom:8:divisor=64:offset=1")
    assert replace(rgb, channels=1) == Preprocessing.parse("custom:8:divisor=64:offset=1:gray")
    assert replace(rgb, channels=1).raw() == Preprocessing("raw", 8, 8, whole_pixels=True, channels=1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("caffe", "Received: 'caffe'. Give MODE:SIZE or MODE:SIZE:RESIZE, such as caffe:224:256"),
        ("caffe:224:256:1", "Received: 'caffe:224:256:1'"),
        ("caffe:big", "Received: 'caffe:big'"),
        ("gray", "Received: 'gray'"),
        ("unit:gray", "Received: 'unit:gray'"),
        ("unit:gray:28", "Received: 'unit:gray:28'"),
        ("unit:28:gray:gray", "Received: 'unit:28:gray:gray'"),
        (
            "caffe:28:gray",
            "Received: mode='caffe', channels=1. Give channels=3, or channels=1 with one of tf, raw, unit",
        ),
        ("torch:28:gray", "mode='torch', channels=1"),
        ("caffe:-1", "Received: 'caffe:-1'"),
        ("caffe:22²", "Received: 'caffe:22²'"),
        ("", "Received: ''"),
        ("unit:" + "9" * 5000, "Can't read the preprocessing"),
        ("timm:224", "`mode` must be 'caffe' or 'tf' or 'torch' or 'raw' or 'unit' or 'custom'. Received: 'timm'"),
        ("caffe:256:224", "size=256, resize=224"),
        ("caffe:224x", "Received: 'caffe:224x'"),
        ("caffe:224x224x3", "Received: 'caffe:224x224x3'"),
        ("caffe:224:256x256", "Received: 'caffe:224:256x256'"),
        ("unit:28:squash:letterbox", "Received: 'unit:28:squash:letterbox'"),
        ("unit:28:squash=3", "Received: 'unit:28:squash=3'"),
        ("unit:28:letterbox=", "Received: 'unit:28:letterbox='"),
        ("unit:28:32:squash", "Nothing is cut out of an image with the fit 'squash'"),
        ("unit:28:bgr", "Only the mode 'custom' takes a divisor, an offset and an order of channels"),
        ("custom:28:divisor=1,2", "Received: divisor=(1.0, 2.0), offset=(0.0, 0.0, 0.0)"),
        ("custom:28:divisor=nan", "Received: 'custom:28:divisor=nan'"),
    ],
)
def test_what_spells_no_preprocessing_is_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        Preprocessing.parse(text)


@pytest.mark.parametrize(
    ("divisor", "offset", "reverse"),
    [((1.0, 1.0), (0.0, 0.0), False), ((1.0,), (0.0, 0.0, 0.0), False), ((1.0,), (0.0,), True)],
)
def test_normalizations_are_of_three_channels_or_one(
    divisor: tuple[float, ...], offset: tuple[float, ...], reverse: bool
) -> None:
    with pytest.raises(ValueError, match="three each, or one each for gray"):
        Normalization(reverse_channels=reverse, divisor=divisor, offset=offset)


@pytest.mark.parametrize("numbers", [(0.0, 1.0, 1.0), (1.0, math.nan, 1.0), (math.inf, 1.0, 1.0)])
def test_divisors_that_give_no_numbers_are_refused(numbers: tuple[float, float, float]) -> None:
    with pytest.raises(ValueError, match="Divisors must be finite and not 0"):
        Normalization(reverse_channels=False, divisor=numbers, offset=(0.0, 0.0, 0.0))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mode": "timm", "size": 8, "resize": 8}, "`mode` must be 'caffe' or .* Received: 'timm'"),
        ({"mode": ["tf"], "size": 8, "resize": 8}, "Give 'mode', 'size' and 'resize'"),
        (
            {"mode": "tf", "size": 8, "resize": 8, "whole_pixels": "no"},
            "`whole_pixels` must be true or false. Received: 'no'",
        ),
        ({"mode": "tf", "size": 8, "resize": 8, "crop": 8}, "unknown fields: 'crop'"),
        ({"mode": "tf", "size": 8, "resize": 8, "channels": 2}, "`channels` must be 1 or 3. Received: 2"),
        ({"mode": "tf", "size": 8, "resize": 8, "channels": "gray"}, "`channels` must be 1 or 3. Received: 'gray'"),
        ({"mode": "tf", "size": 9, "resize": 8}, "size=9, resize=8"),
        ({"mode": "tf", "size": 0, "resize": 8}, "size=0"),
        ({"mode": "tf", "size": "big", "resize": 8}, "`size` must be an integer or a list. Received: 'big'"),
        ({"mode": "tf", "size": 8.0, "resize": 8}, "`size` must be an integer or a list. Received: 8.0"),
        ({"mode": "tf", "size": 8, "resize": 10**9}, "`resize` must be at most 16384. Received: 1000000000"),
        ({"mode": "tf"}, "Give 'mode', 'size' and 'resize'"),
        (
            {"mode": "tf", "size": [8, 8, 8], "resize": 8},
            r"`size` must be a whole number, or two: height and width. Received: \(8, 8, 8\)",
        ),
        ({"mode": "tf", "size": [8, "x"], "resize": 8}, r"`size\[1\]` must be an integer. Received: 'x'"),
        ({"mode": "tf", "size": [96, 160], "resize": 95}, r"size=\(96, 160\), resize=95"),
        ({"mode": "tf", "size": [1, 16384], "resize": 9}, r"at least 9 x 147456 pixels.*Give a `resize` nearer to 1"),
        ({"mode": "tf", "size": 8, "resize": 8, "fit": "pad"}, "`fit` must be 'crop' or 'squash' or 'letterbox'"),
        ({"mode": "tf", "size": 8, "resize": 9, "fit": "squash"}, "Nothing is cut out .*Leave out RESIZE, .* 8"),
        ({"mode": "tf", "size": 8, "resize": 8, "fill": 9}, "Only images with the fit 'letterbox' are padded"),
        ({"mode": "tf", "size": 8, "resize": 8, "fit": "letterbox", "fill": 256}, "`fill` must be at most 255"),
        ({"mode": "tf", "size": 8, "resize": 8, "interpolation": "area"}, "`interpolation` must be 'bilinear' or"),
        ({"mode": "custom", "size": 8, "resize": 8}, "mode='custom', custom=None. Give both or neither"),
        (
            {"mode": "tf", "size": 8, "resize": 8, "custom": CUSTOM},
            r"mode='tf', custom=Normalization\(.*Give both or neither",
        ),
        (
            {"mode": "custom", "size": 8, "resize": 8, "channels": 1, "custom": CUSTOM},
            r"channels=1, with a normalization of 3 channel\(s\)",
        ),
        (
            {"mode": "custom", "size": 8, "resize": 8, "custom": {**CUSTOM, "divisor": [0, 1, 1]}},
            "`custom` can't be read .ValueError: Divisors must be finite and not 0",
        ),
    ],
)
def test_invalid_fields_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Preprocessing.from_dict(fields)
