"""The folder of a run holds one run: another one neither replaces it nor is mixed into it."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from keras_qat.cli.program import app, run_program
from keras_qat.errors import StorageError
from keras_qat.export import ExportSettings, export_file

SIZE, CLASSES, PHOTOS = 8, 3, 30

RUN_COMMAND = (
    *("run", "--model", "a/best.keras", "--data", "photos", "--target", "tensorrt", "--seed", "3"),
    *("--epochs", "1", "--batch-size", "8", "--skip-saved-model", "--skip-diagnosis"),
)


def _save_model(path: Path, seed: int) -> None:
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((SIZE, SIZE, 3)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(4, 3, activation="relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(CLASSES, "softmax"),
        ]
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    model.save(path)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a/best.keras, b/best.keras, photos/, and runs/best-photos-tensorrt, the run of the first with QAT."""
    folder = tmp_path_factory.mktemp("made")
    for seed, name in enumerate("ab"):
        _save_model(folder / name / "best.keras", seed)
    (folder / "photos").mkdir()
    for i in range(PHOTOS):
        _photo(folder / "photos" / f"{i:02}.png", i)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run_program(RUN_COMMAND, app) == 0
    return folder


def _photo(path: Path, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


RUN = Path("runs/best-photos-tensorrt")


@pytest.fixture
def work(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the folder, which tests may change, as the current folder."""
    copy = tmp_path / "work"
    shutil.copytree(made, copy)
    monkeypatch.chdir(copy)
    return copy


def _quantize(model: str, *more: str) -> int:
    return run_program(["quantize", model, "--data", "photos", "--target", "tensorrt", *more], app)


@pytest.mark.usefixtures("work")
def test_a_model_of_the_same_name_does_not_replace_another(capsys: pytest.CaptureFixture[str]) -> None:
    before = (RUN / "ptq.onnx").read_bytes()
    assert _quantize("b/best.keras") == 2
    assert "holds another run" in (error := capsys.readouterr().err)
    assert "a/best.keras" in error
    assert "--run-folder" in error
    assert (RUN / "ptq.onnx").read_bytes() == before
    assert _quantize("b/best.keras", "--run-folder", "mine") == 0


@pytest.mark.usefixtures("work")
def test_quantizing_again_leaves_nothing_of_the_fine_tuned_model() -> None:
    assert (RUN / "qat.onnx").is_file()
    assert _quantize("./a/best.keras", "--seed", "3") == 0
    assert not list(RUN.glob("qat*"))
    assert run_program(["verify", str(RUN)], app) == 0


@pytest.mark.usefixtures("work")
def test_an_interrupted_run_has_neither_results_nor_settings(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("keras_qat.run.pipeline.quantize_after_training", interrupted)
    assert _quantize("a/best.keras", "--calibration-method", "minmax") == 130
    assert not (RUN / "results.json").exists()
    assert run_program(["diagnose", str(RUN)], app) == 2
    assert "not the folder of a run" in capsys.readouterr().err


@pytest.mark.usefixtures("work")
@pytest.mark.parametrize("command", [("train", "--epochs", "2"), ("verify",), ("diagnose",)])
def test_changed_images_are_refused(command: Sequence[str], capsys: pytest.CaptureFixture[str]) -> None:
    """With one more photo, images that calibrated would be among those that evaluate."""
    _photo(Path("photos/new.png"), 99)
    name, *options = command
    assert run_program([name, str(RUN), *options], app) == 2
    error = capsys.readouterr().err
    assert "aren't those that the run was made with" in error
    assert "Received: " in error


@pytest.mark.usefixtures("work")
def test_the_same_images_in_another_place_are_the_same() -> None:
    Path("photos").rename("moved")
    assert run_program(["verify", str(RUN), "--data", "moved"], app) == 0


@pytest.mark.usefixtures("work")
def test_a_refused_training_changes_no_settings(capsys: pytest.CaptureFixture[str]) -> None:
    before = (RUN / "settings.json").read_text()
    assert run_program(["train", str(RUN), "--distillation", "0.5"], app) == 2
    assert "label" in capsys.readouterr().err
    assert (RUN / "settings.json").read_text() == before


@pytest.mark.usefixtures("work")
def test_what_cannot_be_trained_is_known_before_calibration(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("keras_qat.run.pipeline.quantize_after_training", lambda *_: pytest.fail("calibrated"))
    model = keras.models.load_model("a/best.keras")
    logits = keras.layers.Dense(CLASSES, bias_initializer=keras.initializers.Constant(-9))
    keras.Sequential([keras.Input((SIZE, SIZE, 3)), *model.layers[:-1], logits]).save("logits.keras")
    assert run_program(["run", "--model", "logits.keras", "--data", "photos"], app) == 2
    assert "probabilities" in capsys.readouterr().err


@pytest.mark.usefixtures("work")
def test_export_does_not_replace_a_file_of_a_run_and_takes_its_target(capsys: pytest.CaptureFixture[str]) -> None:
    before = (RUN / "ptq.onnx").read_bytes()
    assert run_program(["export", str(RUN / "ptq.keras")], app) == 2
    assert "A file of a run would be replaced" in capsys.readouterr().err
    with pytest.raises(StorageError, match="A file of a run would be replaced"):
        export_file(ExportSettings(RUN / "ptq.keras"))
    assert (RUN / "ptq.onnx").read_bytes() == before
    assert run_program(["export", str(RUN / "ptq.keras"), "--output", "again.onnx", "--json"], app) == 0
    assert json.loads(capsys.readouterr().out)["target"] == "tensorrt"


@pytest.mark.usefixtures("work")
def test_evaluate_judges_on_the_images_of_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    files = ["evaluate", str(RUN / "qat.onnx"), "--data", "photos", "--compare", str(RUN / "ptq.onnx"), "--json"]
    assert run_program(files, app) == 0
    by_run = json.loads(capsys.readouterr().out)
    assert by_run["settings"]["seed"] == 3
    assert run_program([*files, "--seed", "1"], app) == 0
    assert json.loads(capsys.readouterr().out)["settings"]["seed"] == 1


@pytest.mark.usefixtures("work")
def test_training_on_other_images_does_not_go_on_from_these(capsys: pytest.CaptureFixture[str]) -> None:
    """The folder has the same number of other photos. The run is made again with them, and so is its training."""
    for i in range(PHOTOS):
        _photo(Path(f"photos/{i:02}.png"), 1000 + i)
        Path(f"photos/{i:02}.png").rename(f"photos/x{i:02}.png")
    assert run_program(RUN_COMMAND, app) == 0
    assert "Resuming after" not in capsys.readouterr().err
    assert (RUN / "training" / "earlier-1").is_dir()


@pytest.mark.usefixtures("work")
def test_a_file_for_another_engine_than_the_model_was_quantized_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_program(["quantize", "a/best.keras", "--data", "photos", "--run-folder", "ort"], app) == 0
    arguments = ["export", "ort/ptq.keras", "--target", "tensorrt", "--output", "t.onnx"]
    assert run_program(arguments, app) == 3
    assert "isn't one for tensorrt" in capsys.readouterr().err


@pytest.mark.usefixtures("work")
def test_a_mistake_leaves_no_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_program(["quantize", "a/best.keras", "--data", "phtos", "--output", "new"], app) == 2
    assert "phtos" in capsys.readouterr().err
    assert not Path("new").exists()


@pytest.mark.usefixtures("work")
@pytest.mark.parametrize("name", ["old.h5", "photos"])
def test_a_model_that_is_not_a_keras_file(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("old.h5").write_bytes(b"\x89HDF")
    assert run_program(["run", "--model", name, "--data", "photos"], app) == 2
    assert "A model is read from a .keras file" in capsys.readouterr().err


@pytest.mark.usefixtures("work")
def test_images_are_not_normalized_twice(capsys: pytest.CaptureFixture[str]) -> None:
    assert _quantize("a/best.keras", "--preprocessing", "unit:8", "--run-folder", "twice") == 2
    assert "normalized twice: the model begins with the Rescaling" in capsys.readouterr().err
    assert _quantize("a/best.keras", "--preprocessing", "raw:8:10", "--run-folder", "once") == 0


WRONG_TYPES = {
    "epochs": "3",
    "learning_rate": "x",
    "seed": True,
    "data": None,
    "batch_norm": 7,
    "validation_images": "7",
    "overrides": 3,
    "output": None,
    "precision": "fp8",
    "use_cache": 1,
}


@pytest.mark.usefixtures("work")
@pytest.mark.parametrize("name", WRONG_TYPES)
def test_damaged_settings_name_the_option_and_its_type(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    settings = json.loads((RUN / "settings.json").read_text())
    (RUN / "settings.json").write_text(json.dumps({**settings, name: WRONG_TYPES[name]}))
    assert run_program(["diagnose", str(RUN)], app) == 2
    error = capsys.readouterr().err
    assert f"`{name}` can't be read: it must be " in error
    assert f". Received: {WRONG_TYPES[name]!r}. Correct it" in error
