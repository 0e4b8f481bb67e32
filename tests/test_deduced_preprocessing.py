"""The preprocessing of a user's model that begins with a Rescaling, for runs and for `evaluate` and `verify`."""

from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from keras_qat import apply_placement, calibrate, plan, trace
from keras_qat.cli.program import app, run_program
from keras_qat.data import Preprocessing
from keras_qat.errors import UserError
from keras_qat.evaluation import EvaluationSettings, evaluate_file
from keras_qat.export import export_onnx
from keras_qat.models import input_preprocessing
from keras_qat.run import VerificationSettings, verify_files

SIZE = 8
layers = keras.layers


def bright(*first: keras.layers.Layer) -> keras.Model:
    """Says the second class where the mean of what the dense layer reads is above a half."""
    x = image = keras.Input((SIZE, SIZE, 3), name="image")
    for layer in first:
        x = layer(x)
    x = layers.GlobalAveragePooling2D(name="mean")(layers.Conv2D(3, 1, name="conv")(x))
    model = keras.Model(image, layers.Dense(2, name="d")(x))
    model.get_layer("conv").set_weights([np.eye(3)[np.newaxis, np.newaxis], np.zeros(3)])
    model.get_layer("d").set_weights([np.array([[0, 1 / 3]] * 3), np.array([0.5, 0])])
    return model


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """photos/dark and photos/light; own.keras, which rescales by itself, own.onnx of it, and plain.keras."""
    folder = tmp_path_factory.mktemp("work")
    for name, levels in {"dark": range(20, 120, 10), "light": range(140, 240, 10)}.items():
        for level in levels:
            path = folder / "photos" / name / f"{level}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (SIZE, SIZE), (level,) * 3).save(path)
    own = bright(layers.Rescaling(1 / 255, name="scale"))
    own.save(folder / "own.keras")
    export_onnx(own, folder / "own.onnx")
    bright().save(folder / "plain.keras")
    return folder


def test_evaluate_asks_nothing_of_a_model_that_shows_it(work: Path) -> None:
    found = evaluate_file(EvaluationSettings(work / "own.keras", str(work / "photos")))
    (file,) = found.files
    assert Preprocessing.from_dict(file.preprocessing) == Preprocessing("raw", SIZE, SIZE)
    # Fed anything but pixels from 0 to 255, it would call every image dark.
    assert file.top1 is not None
    assert file.top1.value == 1


def test_evaluate_refuses_to_normalize_twice(work: Path) -> None:
    given = Preprocessing("unit", SIZE, SIZE)
    with pytest.raises(UserError, match=r"normalized twice.*Rescaling 'scale'.*--preprocessing unit:8 for.*raw:8"):
        evaluate_file(EvaluationSettings(work / "own.keras", str(work / "photos"), preprocessing=given))


def test_evaluate_says_what_it_saw_of_a_model_that_does_not_show_it(work: Path) -> None:
    with pytest.raises(UserError, match=r"It can't be seen.*plain\.keras, whose first layer is the Conv2D 'conv'"):
        evaluate_file(EvaluationSettings(work / "plain.keras", str(work / "photos")))


def test_verify_takes_it_from_the_keras_model_of_a_file(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = verify_files(VerificationSettings(work / "own.onnx", data=str(work / "photos")))
    (file,) = found.files
    assert (found.inputs, file.images, file.agreement, file.ok) == ("photos/validation", 4, 1.0, True)
    export_onnx(bright(), work / "plain.onnx")
    assert run_program(["verify", str(work / "plain.onnx"), "--data", str(work / "photos")], app) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "plain.onnx, whose first layer is the Conv2D 'conv'" in said
    # Random numbers need no word on it.
    assert run_program(["verify", str(work / "plain.onnx")], app) == 0


def test_fake_quantization_of_the_image_is_seen_through() -> None:
    model = bright(layers.Rescaling(1 / 255))
    placement = plan(trace(model).graph, "onnxruntime")
    pixels = np.random.default_rng(0).uniform(0, 255, (4, SIZE, SIZE, 3)).astype("float32")
    quantized = apply_placement(model, placement, calibrate(model, placement, [pixels]))
    assert input_preprocessing(quantized) == Preprocessing("raw", SIZE, SIZE)
