"""Preprocessing against Keras's own and against Pillow."""

import json
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image

from keras_qat.data import Preprocessing
from keras_qat.errors import UserError


def _smooth_picture(height: int, width: int) -> np.ndarray:
    random = np.random.default_rng(3)
    coarse = random.integers(0, 256, (6, 7, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


@pytest.mark.parametrize(
    ("mode", "reference"),
    [
        ("caffe", keras.applications.resnet.preprocess_input),
        ("tf", keras.applications.resnet_v2.preprocess_input),
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


def test_a_square_image_of_the_right_size_is_left_alone() -> None:
    picture = _smooth_picture(16, 16)
    np.testing.assert_allclose(Preprocessing("tf", 16, 16).prepare(picture), picture / np.float32(127.5) - 1, atol=1e-6)


def test_for_size_crops_nothing() -> None:
    small = Preprocessing("caffe", size=224, resize=256).for_size(32)
    assert small == Preprocessing("caffe", size=32, resize=32)


def test_dict_round_trip_through_json() -> None:
    preprocessing = Preprocessing("tf", size=299, resize=342)
    assert Preprocessing.from_dict(json.loads(json.dumps(preprocessing.to_dict()))) == preprocessing


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mode": "torch", "size": 8, "resize": 8}, "mode='torch'"),
        ({"mode": "tf", "size": 9, "resize": 8}, "size=9, resize=8"),
        ({"mode": "tf", "size": 0, "resize": 8}, "size=0"),
        ({"mode": "tf", "size": "big", "resize": 8}, "'size': 'big'"),
        ({"mode": "tf"}, "Give 'mode', 'size' and 'resize'"),
    ],
)
def test_invalid_fields_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Preprocessing.from_dict(fields)
