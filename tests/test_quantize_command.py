"""A user's model and photos on the command line: quantize, then train."""

import json
from pathlib import Path

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image

from keras_qat.cli.program import app, run_program
from keras_qat.run import RunFolder, load_saved

SIZE = 16
CLASS_NAMES = ("blue", "green", "red")
CHANNELS = (2, 1, 0)


def _photos(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images of noise with a bright square in the channel that is the class; and their labels."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, len(CLASS_NAMES), count)
    images = random.integers(0, 120, (count, SIZE, SIZE, 3), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        top, left = random.integers(0, SIZE - 6, 2)
        image[top : top + 6, left : left + 6, CHANNELS[label]] = 255
    return images, labels


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of my.keras, a trained Sequential CNN, photos/ without labels, and classes/ with labels."""
    folder = tmp_path_factory.mktemp("work")
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((SIZE, SIZE, 3)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(8, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(16, 3),
            layers.BatchNormalization(momentum=0.8),
            layers.ReLU(),
            layers.GlobalAveragePooling2D(),
            layers.Dense(len(CLASS_NAMES), "softmax"),
        ]
    )
    model.compile(keras.optimizers.Adam(1e-2), "sparse_categorical_crossentropy")
    x, y = _photos(512, seed=1)
    model.fit(x, y, batch_size=32, epochs=6, verbose=0)
    model.save(folder / "my.keras")
    images, labels = _photos(100, seed=2)
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        for path in (folder / "photos", folder / "classes" / CLASS_NAMES[label]):
            path.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def quantized(work: Path) -> Path:
    """The folder of the run that `quantize` makes with the photos without labels."""
    arguments = ["quantize", str(work / "my.keras"), "--data", str(work / "photos"), "--output", str(work / "runs")]
    assert run_program(arguments, app) == 0
    return work / "runs" / "my-photos-onnxruntime"


def test_the_file_is_int8_and_classifies_like_the_model(work: Path, quantized: Path) -> None:
    operators = [node.op_type for node in onnx.load(quantized / "ptq.onnx").graph.node]
    assert "QuantizeLinear" in operators
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")  # CPUs without VNNI saturate otherwise.
    session = onnxruntime.InferenceSession(quantized / "ptq.onnx", options, providers=["CPUExecutionProvider"])
    x, _ = _photos(200, seed=3)
    (scores,) = session.run(None, {session.get_inputs()[0].name: x.astype(np.float32)})
    expected = keras.models.load_model(work / "my.keras").predict(x, verbose=0)
    assert np.mean(scores.argmax(axis=1) == expected.argmax(axis=1)) > 0.97


def test_photos_without_labels_give_agreement_and_no_accuracy(quantized: Path) -> None:
    results = json.loads((quantized / "results.json").read_text())
    assert (results["model"], results["data"], results["images"]) == ("my", "photos", 20)
    for row in results["rows"]:
        assert row["keras_top1"] is row["deployed_top1"] is None
        assert row["agreement"] > 0.9
    table = (quantized / "results.md").read_text()
    assert "| PTQ | – |" in table


def test_the_folder_has_all_files_of_a_run(quantized: Path) -> None:
    names = {path.name for path in quantized.iterdir()}
    assert {
        *("baseline.keras", "baseline.onnx", "ptq.keras", "ptq.onnx"),
        *("settings.json", "preprocessing.json", "overrides.json"),
        *("placement.md", "placement.json", "ranges.json", "ptq_diagnosis.json"),
        *("results.json", "results.md", "report.html"),
    } <= names
    assert json.loads((quantized / "preprocessing.json").read_text())["preprocessing"]["mode"] == "raw"


def test_labelled_photos_give_accuracy_and_json_is_the_record(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["quantize", str(work / "my.keras"), "--data", str(work / "classes"), "--json"]
    assert run_program([*arguments, "--run-folder", str(work / "labelled")], app) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((work / "labelled" / "results.json").read_text())
    baseline, ptq = printed["rows"]
    assert baseline["keras_top1"] > 0.9
    assert ptq["deployed_top1"] >= baseline["keras_top1"] - 0.05


def test_training_continues_from_the_run_without_labels(quantized: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["train", str(quantized), "--epochs", "1", "--batch-size", "16", "--learning-rate", "1e-5"]
    assert run_program(arguments, app) == 0
    assert "QAT" in capsys.readouterr().out
    results = json.loads((quantized / "results.json").read_text())
    assert [row["name"] for row in results["rows"]] == ["Baseline", "PTQ", "QAT"]
    assert [record["epoch"] for record in results["history"]] == [0, 1]
    assert all(record["selection_accuracy"] is None for record in results["history"])
    settings = json.loads((quantized / "settings.json").read_text())
    assert (settings["epochs"], settings["skip_fine_tuning"]) == (1, False)


MISTAKES: dict[str, tuple[list[str], str]] = {
    "no such model": (["none.keras", "--data", "photos"], "There is no such model file"),
    "not a model": (["photos/0.png", "--data", "photos"], "photos/0.png"),
    "no data": (["my.keras", "--data", "nowhere"], "no data set or folder"),
    "unknown target": (["my.keras", "--data", "photos", "--target", "tpu"], "tpu"),
    "preprocessing of another size": (["my.keras", "--data", "photos", "--preprocessing", "unit:32"], "32"),
    "already quantized": (["runs/my-photos-onnxruntime/ptq.keras", "--data", "photos"], "quantized already"),
    "classes of another number": (["my.keras", "--data", "digits"], "classes"),
}


def test_a_photo_that_was_damaged_since_is_reported_with_advice(
    quantized: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`diagnose` and `train` have no --skip-bad; the command that made the run has it."""
    held_out = Path(load_saved(RunFolder(quantized).settings()).selection.source.paths[0])
    whole = held_out.read_bytes()
    fingerprints = quantized / "data.json"
    before = fingerprints.read_text()
    held_out.write_bytes(whole[:60] + bytes(len(whole) - 60))  # as long as before, and begins as an image
    try:
        assert run_program(["diagnose", str(quantized)], app) == 2
        assert "some were added, removed or changed" in " ".join(capsys.readouterr().err.split())
        # A run with --skip-diagnosis may never have looked at that photo.
        fingerprints.unlink()
        for command in ("diagnose", "train"):
            assert run_program([command, str(quantized)], app) == 2
            error = " ".join(capsys.readouterr().err.split())
            assert f"Can't read the image {held_out}" in error
            assert error.endswith("Or make the run anew with --skip-bad, which leaves such files out.")
    finally:
        held_out.write_bytes(whole)
        fingerprints.write_text(before)


@pytest.mark.usefixtures("quantized")
@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes(
    mistake: str, work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, message = MISTAKES[mistake]
    monkeypatch.chdir(work)
    assert run_program(["quantize", *arguments, "--run-folder", "failed"], app) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Received: " in error


def test_a_model_that_does_not_classify(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x = keras.Input((SIZE, SIZE, 3))
    keras.Model(x, keras.layers.Conv2D(1, 3, name="map")(keras.layers.Rescaling(1 / 255)(x))).save(work / "map.keras")
    command = ["quantize", str(work / "map.keras"), "--data", str(work / "photos"), "--output", str(work)]
    assert run_program([*command, "--task", "classification"], app) == 2
    assert "can't be a classification" in capsys.readouterr().err
    assert run_program([*command, "--task", "mask=segmentation"], app) == 2
    assert "has no output 'mask'" in capsys.readouterr().err
    assert run_program(command, app) == 0
    out = capsys.readouterr().out
    assert "SQNR" in out
    assert "top-1" not in out


def test_weights_that_are_not_numbers(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = keras.models.load_model(work / "my.keras")
    model.layers[1].bias.assign(np.full(8, np.nan, np.float32))
    model.save(work / "nan.keras")
    assert (
        run_program(["quantize", str(work / "nan.keras"), "--data", str(work / "photos"), "--output", str(work)], app)
        == 2
    )
    assert "not finite" in capsys.readouterr().err


def test_training_needs_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_program(["train", str(tmp_path)], app) == 2
    assert "not the folder of a run" in capsys.readouterr().err
