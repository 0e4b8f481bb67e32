"""Networks of one channel: gray as Pillow and Keras make it, in batches and in files that read pixels."""

from pathlib import Path

import keras
import numpy as np
import onnxruntime
import pytest
from PIL import Image

from keras_qat.data import Augmentation, ImageSet, Preprocessing, load_data
from keras_qat.data.normalizations import GRAY_NORMALIZATIONS
from keras_qat.errors import UserError
from keras_qat.evaluation import EvaluationSettings, classify, evaluate_file
from keras_qat.export import export_onnx
from keras_qat.models import ModelFacts, read_model_facts

SIDE = 8
UNIT = Preprocessing("unit", SIDE, SIDE, whole_pixels=True, channels=1)


@pytest.fixture(scope="module")
def network() -> keras.Model:
    """Bright or dark: the second score grows with the mean of the image."""
    x = keras.Input((SIDE, SIDE, 1), name="image")
    y = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(1, 1, name="conv")(x))
    model = keras.Model(x, keras.layers.Dense(2, name="scores")(y))
    model.get_layer("conv").set_weights([np.ones((1, 1, 1, 1)), np.zeros(1)])
    model.get_layer("scores").set_weights([np.array([[0.0, 1.0]]), np.array([0.5, 0.0])])
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Blue photos, which are dark as gray, and yellow ones, which are bright."""
    root = tmp_path_factory.mktemp("gray") / "photos"
    for name, colour in {"dark": (0, 0, 255), "light": (255, 255, 0)}.items():
        (root / name).mkdir(parents=True)
        for i in range(10):
            Image.new("RGB", (9 + i, 12), colour).save(root / name / f"{i}.png")
    return root


def test_whole_gray_pixels_are_pillows() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    ours = np.asarray(UNIT.raw().prepare(picture))[..., 0]
    pillow = np.asarray(Image.fromarray(picture).convert("L"), np.float32)
    # Pillow's weights are multiples of 2**-16: a value on the border of two levels may fall to the other side.
    assert np.abs(ours - pillow).max() <= 1
    assert np.mean(ours == pillow) > 0.95


def test_what_is_gray_keeps_its_value_to_the_bit() -> None:
    levels = np.random.default_rng(1).uniform(0, 255, (SIDE, SIDE, 1)).astype(np.float32)
    ours = Preprocessing("raw", SIDE, SIDE, channels=1).finish(np.repeat(levels, 3, -1))
    np.testing.assert_array_equal(ours, levels)


@pytest.mark.parametrize("mode", ["raw", "unit", "tf"])
def test_the_digits_in_one_channel_are_one_of_the_three(mode: str) -> None:
    gray = load_data("digits", Preprocessing(mode, SIDE, SIDE, channels=1), seed=0).validation
    colour = load_data("digits", Preprocessing(mode, SIDE, SIDE), seed=0).validation
    for (one, _), (three, _) in zip(gray.arrays(180), colour.arrays(180), strict=True):
        assert one.shape == (180, SIDE, SIDE, 1)
        np.testing.assert_array_equal(one, three[..., :1])


def test_varied_images_are_gray_too() -> None:
    picture = np.random.default_rng(2).integers(0, 256, (4, 12, 10, 3), dtype=np.uint8)
    images = ImageSet.from_arrays("noise", picture, [0] * 4, UNIT)
    (batch, _), *_ = images.batches(4, shuffle_seed=1, augment=Augmentation(crop_area=(0.5, 1.0)))
    assert batch.shape == (4, SIDE, SIDE, 1)


@pytest.mark.parametrize("mode", ["raw", "unit", "tf"])
def test_a_file_that_reads_gray_pixels_computes_what_the_plain_one_does(
    network: keras.Model, mode: str, tmp_path: Path
) -> None:
    preprocessing = Preprocessing(mode, SIDE, SIDE, channels=1)
    pixels = np.random.default_rng(3).integers(0, 256, (5, SIDE, SIDE, 1), dtype=np.uint8)
    plain = export_onnx(network, tmp_path / "plain.onnx")
    embedded = export_onnx(network, tmp_path / "pixels.onnx", normalization=preprocessing.normalization)
    sessions = [onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]) for path in (plain, embedded)]
    assert [(s.get_inputs()[0].type, s.get_inputs()[0].shape[1:]) for s in sessions] == [
        ("tensor(float)", [SIDE, SIDE, 1]),
        ("tensor(uint8)", [SIDE, SIDE, 1]),
    ]
    normalized = np.asarray(preprocessing.normalize(pixels))
    expected = sessions[0].run(None, {"image": normalized})[0]
    np.testing.assert_array_equal(sessions[1].run(None, {"image": pixels})[0], expected)


def test_a_file_of_the_other_number_of_channels_is_refused(network: keras.Model, tmp_path: Path) -> None:
    rgb = Preprocessing("unit", SIDE, SIDE).normalization
    with pytest.raises(UserError, match=r"one input of RGB images, \(batch, height, width, 3\).*Received: image"):
        export_onnx(network, tmp_path / "x.onnx", normalization=rgb)
    x = keras.Input((SIDE, SIDE, 3), name="image")
    colour = keras.Model(x, keras.layers.Conv2D(1, 1)(x))
    with pytest.raises(UserError, match=r"one input of gray images, \(batch, height, width, 1\).*Received: image"):
        export_onnx(colour, tmp_path / "x.onnx", normalization=GRAY_NORMALIZATIONS["unit"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("embedded", [True, False])
def test_files_are_evaluated_on_gray(network: keras.Model, folder: Path, embedded: bool, tmp_path: Path) -> None:
    facts = ModelFacts(UNIT, embedded, ("dark", "light"))
    normalization = UNIT.normalization if embedded else None
    path = export_onnx(network, tmp_path / "m.onnx", normalization=normalization, metadata=facts.metadata())
    assert read_model_facts(path) == facts
    found = evaluate_file(EvaluationSettings(path, str(folder)))
    assert found.files[0].top1 is not None
    assert (found.images, found.files[0].top1.value) == (4, 1)
    assert classify(path, folder / "light" / "0.png").classes[0].name == "light"
    # 0.114 · 255 as whole pixels, over 255.
    dark = classify(path, folder / "dark" / "0.png").classes
    assert {c.name: c.score for c in dark} == {"dark": 0.5, "light": pytest.approx(29 / 255)}


def test_a_file_of_one_channel_needs_no_word_about_it(network: keras.Model, folder: Path, tmp_path: Path) -> None:
    path = export_onnx(network, tmp_path / "m.onnx")
    for text in ("unit:8", "unit:8:gray"):
        ranked = classify(path, folder / "light" / "0.png", preprocessing=Preprocessing.parse(text)).classes
        assert ranked[0].index == 1
    with pytest.raises(UserError, match="mode='caffe', channels=1"):
        classify(path, folder / "light" / "0.png", preprocessing=Preprocessing.parse("caffe:8"))
    x = keras.Input((SIDE, SIDE, 3), name="image")
    colour = export_onnx(
        keras.Model(x, keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(2, 1)(x))), tmp_path / "c.onnx"
    )
    with pytest.raises(UserError, match=r"prepared with 1 channel.*c\.onnx reads image"):
        classify(colour, folder / "light" / "0.png", preprocessing=UNIT)
