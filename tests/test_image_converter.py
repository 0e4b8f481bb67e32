"""KerasHub's image converters as preprocessing, of a model and of a preset's files; a stand-in has KerasHub's names."""

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest

from keras_qat.data import Preprocessing, converter_preprocessing, read_preprocessing
from keras_qat.errors import UserError
from keras_qat.models import input_preprocessing

SIZE = (12, 20)
IMAGENET = {
    "scale": [1 / (255 * std) for std in (0.229, 0.224, 0.225)],
    "offset": [-mean / std for mean, std in zip((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True)],
}


class ImageConverter:
    """What keras_hub.layers.ImageConverter has in its configuration."""

    def __init__(self, **config: Any) -> None:
        self.config = config

    def call(self, images: Any) -> Any:
        return images

    def get_config(self) -> dict[str, Any]:
        plain = {"name": "converter", "trainable": True, "dtype": {"class_name": "DTypePolicy"}}
        return plain | {"image_size": None, "scale": None, "offset": None, "bounding_box_format": "yxyx"} | self.config


class TinyImageConverter(ImageConverter):
    backbone_cls = None


class OddImageConverter(ImageConverter):
    def call(self, images: Any) -> Any:
        return images[::-1]


class Task(keras.Model):
    """A functional model with a preprocessor, as keras_hub.models.Task is one."""

    preprocessor: Any = None


@pytest.fixture(autouse=True)
def hub(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = ModuleType("keras_hub")
    module.layers = SimpleNamespace(ImageConverter=ImageConverter)
    module.models = SimpleNamespace(Task=Task)
    monkeypatch.setitem(sys.modules, "keras_hub", module)


def task(converter: Any, shape: tuple[int | None, ...] = (None, None, 3), *first: Any) -> Task:
    x = image = keras.Input(shape)
    for layer in first:
        x = layer(x)
    model = Task(image, keras.layers.Conv2D(2, 3, name="conv")(x))
    model.preprocessor = SimpleNamespace(image_converter=converter)
    return model


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"scale": 1 / 255, "antialias": True}, "unit:12x20"),
        ({"scale": 1 / 127.5, "offset": -1}, "tf:12x20:aliased"),
        ({**IMAGENET, "antialias": True}, "torch:12x20"),
        ({"interpolation": "bicubic", "antialias": True}, "raw:12x20:bicubic"),
        ({"crop_to_aspect_ratio": False}, "raw:12x20:squash:aliased"),
        ({"crop_to_aspect_ratio": False, "pad_to_aspect_ratio": True, "antialias": True}, "raw:12x20:letterbox"),
        ({"scale": [0.5, 0.25, 1], "offset": 3, "antialias": True}, "custom:12x20:divisor=2.0,4.0,1.0:offset=-3.0"),
    ],
)
def test_a_task_says_how_its_images_are_prepared(config: dict[str, Any], text: str) -> None:
    found = input_preprocessing(task(TinyImageConverter(image_size=SIZE, **config)))
    assert str(found) == text
    # An image of the input's size is not resized: what remains is y = x · scale + offset.
    pixels = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    expected = pixels * np.asarray(config.get("scale", 1.0)) + np.asarray(config.get("offset", 0.0))
    np.testing.assert_allclose(found.prepare(pixels), expected, rtol=1e-5, atol=1e-5)


def test_a_gray_task_has_one_number() -> None:
    found = input_preprocessing(task(ImageConverter(image_size=SIZE, scale=0.25, antialias=True), (*SIZE, 1)))
    assert found == Preprocessing.parse("custom:12x20:divisor=4:gray")


def test_what_is_said_goes_before_the_preprocessor() -> None:
    model = task(ImageConverter(image_size=SIZE, scale=1 / 255))
    assert input_preprocessing(model, "tf:16") == Preprocessing("tf", 16, 16)


def test_the_preprocessor_goes_before_the_first_layer() -> None:
    model = task(ImageConverter(image_size=SIZE, antialias=True), (None, None, 3), keras.layers.Rescaling(1 / 255))
    assert input_preprocessing(model) == Preprocessing("raw", SIZE, 12)


@pytest.mark.parametrize("converter", [None, ImageConverter(image_size=SIZE)])
def test_a_model_that_is_no_task_is_asked_about(converter: Any) -> None:
    image = keras.Input((*SIZE, 3))
    model = keras.Model(image, keras.layers.Conv2D(2, 3, name="conv")(image))
    model.preprocessor = SimpleNamespace(image_converter=converter)
    with pytest.raises(UserError, match="It can't be seen from a model"):
        input_preprocessing(model)
    with pytest.raises(UserError, match="It can't be seen from a model"):
        input_preprocessing(task(None, (*SIZE, 3)))


@pytest.mark.parametrize(
    ("converter", "message"),
    [
        (ImageConverter(), r"which size images are resized.*image_size=None in the preprocessor of my\.keras"),
        (ImageConverter(image_size=SIZE, patch_size=4), r"my\.keras: it has unknown fields: 'patch_size'"),
        (ImageConverter(image_size=SIZE, interpolation="area"), "`interpolation` must be 'bilinear' or"),
        (ImageConverter(image_size=SIZE, scale=0), r"finite numbers other than 0.*scale=0.0"),
        (ImageConverter(image_size=SIZE, scale=[1, 2]), r"scales 3 channel\(s\).*scale=\(1.0, 2.0\)"),
        (OddImageConverter(image_size=SIZE), "of its own kind.*OddImageConverter in my.keras"),
        (ImageConverter(image_size=(16, 16)), r"16 x 16 pixels.*doesn't read.*MODE:12x20"),
    ],
)
def test_what_is_lost_is_said(converter: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        input_preprocessing(task(converter, (*SIZE, 3)), None, "my.keras")
    assert "Received: " in str(raised.value)


def test_files_of_a_preset_are_read(tmp_path: Path) -> None:
    converter = {"class_name": "TinyImageConverter", "config": ImageConverter(image_size=[12, 20]).get_config()}
    preprocessor = {"class_name": "TinyPreprocessor", "config": {"name": "p", "image_converter": converter}}
    whole = {"class_name": "TinyClassifier", "config": {"backbone": {}, "preprocessor": preprocessor}}
    files = {"image_converter.json": converter, "preprocessor.json": preprocessor, "task.json": whole}
    image = keras.Input((*SIZE, 1))
    gray = keras.Model(image, keras.layers.Conv2D(2, 3)(image))
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
        expected = Preprocessing("raw", SIZE, 12, antialias=False)
        assert read_preprocessing(str(tmp_path / name)) == expected
        assert input_preprocessing(gray, str(tmp_path / name)).channels == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "describes no preprocessor"),
        ({"class_name": "Tokenizer"}, "describes no preprocessor"),
        ({"config": {"vocabulary_size": 3}}, "has unknown fields: 'vocabulary_size'"),
    ],
)
def test_other_files_are_refused(content: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "preprocessor.json"
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=message) as raised:
        read_preprocessing(str(path))
    assert str(path) in str(raised.value)


def test_a_crop_is_that_of_keras_to_half_a_pixel() -> None:
    """KerasHub resizes with this layer, which crops first."""
    y, x = np.mgrid[0:90, 0:150]
    ramp = np.stack([y, x, np.zeros_like(x)], -1).astype(np.uint8)
    layer = keras.layers.Resizing(*SIZE, crop_to_aspect_ratio=True)
    theirs = np.asarray(layer(ramp.astype(np.float32)))
    ours = np.asarray(converter_preprocessing({"image_size": SIZE}, 3, "it").prepare(ramp))
    pixel = 90 / 12
    assert np.abs(ours - theirs).max() <= pixel / 2
