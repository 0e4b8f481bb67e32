"""What a user's own model reads: said, seen from its first layer, or asked for."""

import json
import re
import zipfile
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest

from keras_qat.data import Preprocessing
from keras_qat.errors import StorageError, UnsupportedModelError, UserError
from keras_qat.models import input_preprocessing, load_model_file

layers = keras.layers


def sequential(*first: Any, shape: tuple[int | None, ...] = (16, 16, 3)) -> keras.Model:
    return keras.Sequential([keras.Input(shape), *first, layers.Conv2D(2, 3, name="conv")])


def nested(first: Any) -> keras.Model:
    image = keras.Input((16, 16, 3))
    return keras.Model(image, keras.Sequential([keras.Input((16, 16, 3)), first, layers.Conv2D(2, 3)])(image))


def adapted(low: float, high: float) -> Any:
    layer = layers.Normalization()
    layer.adapt(np.random.default_rng(0).uniform(low, high, (20, 4, 4, 3)).astype("float32"))
    return layer


@pytest.mark.parametrize(
    "model",
    [
        sequential(layers.Rescaling(1 / 255)),
        sequential(layers.Rescaling(1 / 127.5, offset=-1)),
        sequential(layers.Rescaling(scale=[1 / 58, 1 / 57, 1 / 57])),
        sequential(layers.Dropout(0.1), layers.Rescaling(1 / 255)),
        nested(layers.Rescaling(1 / 255)),
        sequential(adapted(0, 255)),
        sequential(layers.Normalization(mean=[124.0, 117.0, 104.0], variance=[3400.0, 3300.0, 3300.0])),
    ],
    ids=["1/255", "1/127.5", "by channel", "behind dropout", "nested", "adapted", "normalization"],
)
def test_a_first_layer_that_brings_pixels_into_range_says_raw(model: keras.Model) -> None:
    assert input_preprocessing(model, None) == Preprocessing("raw", 16, 16)


def augmented(*first: Any, dtype: str = "float32", shape: tuple[int, ...] = (16, 24, 3)) -> keras.Model:
    """A network of pixels behind other layers."""
    x = image = keras.Input(shape, dtype=dtype)
    for layer in (*first, layers.Rescaling(1 / 255)):
        x = layer(x)
    return keras.Model(image, layers.Conv2D(2, 3)(x))


@pytest.mark.parametrize(
    "model",
    [
        augmented(layers.RandomFlip(), layers.RandomRotation(0.1), layers.RandomContrast(0.1)),
        augmented(keras.Sequential([layers.RandomFlip(), layers.RandomZoom(0.1)])),
        augmented(layers.Identity(), layers.RandomFlip(), dtype="uint8"),
        augmented(lambda x: keras.ops.cast(x, "float32"), dtype="uint8"),
        augmented(layers.Reshape((16, 24, 3))),
        augmented(lambda x: keras.ops.reshape(x, (-1, 16, 24, 3))),
        augmented(layers.Resizing(16, 24), layers.CenterCrop(16, 24), layers.ZeroPadding2D(0)),
        augmented(augmented(layers.RandomFlip()).layers[1]),
    ],
    ids=["random", "nested", "uint8", "cast", "reshape", "ops.reshape", "of the same size", "oblong"],
)
def test_pixels_are_seen_behind_layers_that_pass_them_on(model: keras.Model) -> None:
    assert input_preprocessing(model) == Preprocessing("raw", (16, 24), 16)


@pytest.mark.parametrize(
    "first",
    [layers.Resizing(8, 12), layers.CenterCrop(8, 12), layers.Reshape((24, 16, 3)), layers.Permute((2, 1, 3))],
    ids=lambda layer: type(layer).__name__,
)
def test_pixels_are_not_looked_for_behind_layers_that_change_the_image(first: Any) -> None:
    with pytest.raises(UserError, match=rf"whose first layer is the {type(first).__name__}.*MODE:16x24"):
        input_preprocessing(augmented(first))


@pytest.mark.parametrize("name", ["MobileNetV3Small", "EfficientNetB0"])
def test_networks_that_rescale_inside(name: str) -> None:
    model = getattr(keras.applications, name)(weights=None, input_shape=(32, 32, 3), classes=2)
    assert input_preprocessing(model, None) == Preprocessing("raw", 32, 32)


def test_a_network_told_not_to_rescale_must_be_asked_about() -> None:
    model = keras.applications.MobileNetV3Small(
        weights=None, input_shape=(32, 32, 3), classes=2, include_preprocessing=False
    )
    with pytest.raises(UserError, match=r"can't be seen.*whose first layer is the Conv2D 'conv'.*MODE:32"):
        input_preprocessing(model, None)


@pytest.mark.parametrize(
    ("first", "named"),
    [
        ([], "the Conv2D 'conv'"),
        ([layers.Rescaling(2.0, offset=-1, name="twice")], "the Rescaling 'twice'"),
        ([adapted(0, 1)], "the Normalization"),
        ([layers.ZeroPadding2D(name="pad"), layers.Rescaling(1 / 255)], "the ZeroPadding2D 'pad'"),
        ([layers.Normalization(mean=120.0, variance=3000.0, invert=True, axis=None)], "the Normalization"),
    ],
    ids=["none", "of numbers from 0 to 1", "adapted to numbers from 0 to 1", "later", "inverted"],
)
def test_nothing_is_guessed(first: list[Any], named: str) -> None:
    with pytest.raises(UserError, match="It can't be seen from a model how its images were prepared") as raised:
        input_preprocessing(sequential(*first), None, "my.keras")
    text = str(raised.value)
    assert f"Received: my.keras, whose first layer is {named}" in text
    assert "with an input of 16 x 16 x 3. Give --preprocessing MODE:16, or MODE:16:RESIZE" in text
    assert re.findall(r"^  (\w+): ", text, re.MULTILINE) == ["unit", "raw", "tf", "torch", "caffe"]


def test_only_modes_that_have_gray_are_offered_for_gray() -> None:
    with pytest.raises(UserError) as raised:
        input_preprocessing(sequential(shape=(16, 16, 1)), None)
    assert re.findall(r"^  (\w+): ", str(raised.value), re.MULTILINE) == ["unit", "raw", "tf"]


def test_operations_are_named_as_layers_are() -> None:
    image = keras.Input((16, 16, 3))
    with pytest.raises(UserError, match=r"whose first layer is the TrueDivide 'true_divide"):
        input_preprocessing(keras.Model(image, layers.Conv2D(2, 3)(image / 255.0)), None)


@pytest.mark.parametrize(
    ("shape", "text", "expected"),
    [
        ((16, 16, 3), "unit:16", Preprocessing("unit", 16, 16)),
        ((16, 16, 3), "caffe:16:20", Preprocessing("caffe", 16, 20)),
        ((16, 16, 1), "unit:16", Preprocessing("unit", 16, 16, channels=1)),
        ((16, 16, 1), "tf:16:20:gray", Preprocessing("tf", 16, 20, channels=1)),
        ((None, None, 3), "torch:24", Preprocessing("torch", 24, 24)),
        ((None, 16, 3), "raw:16", Preprocessing("raw", 16, 16)),
        ((16, 24, 3), "unit:16x24:20", Preprocessing("unit", (16, 24), 20)),
        ((16, 24, 1), "unit:16x24:letterbox=114", Preprocessing("unit", (16, 24), 16, False, 1, "letterbox", 114)),
        ((None, 24, 3), "unit:16x24:squash", Preprocessing("unit", (16, 24), 16, fit="squash")),
        ((16, 16, 1), "custom:16:divisor=64", Preprocessing.parse("custom:16:divisor=64:gray")),
    ],
)
def test_what_is_said_is_taken(shape: tuple[int | None, ...], text: str, expected: Preprocessing) -> None:
    assert input_preprocessing(sequential(shape=shape), text) == expected


def test_what_is_said_goes_before_what_is_seen_but_not_twice() -> None:
    assert input_preprocessing(sequential(layers.Rescaling(1 / 255)), "raw:16:20").resize == 20
    with pytest.raises(UserError, match=r"normalized twice.*Rescaling.*raw:16"):
        input_preprocessing(sequential(layers.Rescaling(1 / 255)), "unit:16")


@pytest.mark.parametrize(
    ("shape", "text", "message"),
    [
        ((16, 16, 3), "unit:24", r"24 x 24.*--preprocessing unit:24 for my\.keras.*16 x 16 x 3\. Give it as MODE:16"),
        ((None, 16, 3), "unit:24", "Give it as MODE:16"),
        ((16, 24, 3), "unit:24x16", r"24 x 16 pixels.*16 x 24 x 3\. Give it as MODE:16x24 or MODE:16x24:RESIZE"),
        ((16, 24, 3), "unit:16", "Give it as MODE:16x24"),
        ((16, 16, 3), "unit:16:gray", "makes gray images, and the model reads RGB.*Leave out ':gray'"),
        ((16, 16, 1), "caffe:16", "mode='caffe', channels=1"),
        ((16, 16, 3), "unit", "Can't read the preprocessing"),
    ],
)
def test_what_is_said_must_fit(shape: tuple[int | None, ...], text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        input_preprocessing(sequential(shape=shape), text, "my.keras")


def test_a_size_must_be_chosen_where_any_will_do() -> None:
    model = sequential(layers.Rescaling(1 / 255, name="scale"), shape=(None, None, 3))
    with pytest.raises(UserError, match=r"images of any size.*raw:224: it begins with the Rescaling 'scale'"):
        input_preprocessing(model, None)


def two_images() -> keras.Model:
    left, right = (keras.Input((16, 16, 3)) for _ in range(2))
    return keras.Model([left, right], layers.Add()([left, right]))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (two_images(), r"one image to a model with one input.*reads .*; "),
        (keras.Sequential([keras.Input((9,)), layers.Dense(2)]), r"\(batch, height, width, channels\)"),
        (sequential(shape=(16, 16, 4)), "with 1 or 3 channels.*come as arrays.*no preprocessing"),
        (
            keras.Sequential([keras.Input((3, 16, 16)), layers.ZeroPadding2D(data_format="channels_first")]),
            "channels last.*channels_last",
        ),
    ],
    ids=["two inputs", "no image", "four channels", "channels first"],
)
def test_models_of_other_inputs_are_sent_to_the_api(model: keras.Model, message: str) -> None:
    for text in (None, "unit:16"):
        with pytest.raises(UnsupportedModelError, match=message) as raised:
            input_preprocessing(model, text, "my.keras")
        assert "Received: my.keras, which reads" in str(raised.value)
        assert "the Python API, which takes any arrays: plan, calibrate" in str(raised.value)


def test_a_model_without_a_graph() -> None:
    class Coded(keras.Model):
        def call(self, x: Any) -> Any:
            return x

    with pytest.raises(UnsupportedModelError, match="Only models with inputs have a graph"):
        input_preprocessing(Coded(), "unit:16")


# --- files ------------------------------------------------------------------------------------------------------------


def with_groups(config: str | bytes) -> str:
    """The description of a model with the argument that depthwise convolutions had in earlier versions of Keras."""
    described = json.loads(config)
    for layer in described["config"]["layers"]:
        if layer["class_name"] == "DepthwiseConv2D":
            layer["config"]["groups"] = 1
    return json.dumps(described)


def saved_by_an_earlier_keras(model: keras.Model, path: Path) -> Path:
    model.save(path)
    if path.suffix == ".h5":
        with h5py.File(path, "r+") as file:
            file.attrs["model_config"] = with_groups(file.attrs["model_config"])
        return path
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    content["config.json"] = with_groups(content["config.json"]).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return path


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
@pytest.mark.parametrize("name", ["old.keras", "old.h5"])
def test_a_file_of_an_earlier_keras_is_read(name: str, tmp_path: Path) -> None:
    model = sequential(layers.DepthwiseConv2D(3))
    path = saved_by_an_earlier_keras(model, tmp_path / name)
    with pytest.raises(TypeError, match=r"groups|could not be deserialized"):
        keras.saving.load_model(path, compile=False)
    found = load_model_file(path)
    assert [type(layer) for layer in found.layers] == [type(layer) for layer in model.layers]
    image = np.ones((1, 16, 16, 3), "float32")
    np.testing.assert_array_equal(np.asarray(found(image)), np.asarray(model(image)))
    assert [item.name for item in tmp_path.iterdir()] == [name]


def test_a_saved_model_is_refused_with_the_way(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pb").touch()
    with pytest.raises(StorageError, match=r"A SavedModel has .* no layers.*Received: .*model\.save\('my\.keras'\)"):
        load_model_file(tmp_path)
