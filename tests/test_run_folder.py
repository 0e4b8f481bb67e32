"""The folder of a run holds one run: another one neither replaces it nor is mixed into it."""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import onnx
import pytest
from PIL import Image

from keras_qat.cli.program import app, run_program
from keras_qat.errors import StorageError
from keras_qat.export import ExportSettings, export_file, export_saved_model
from keras_qat.files import locked

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
def test_an_interrupted_run_has_neither_results_nor_models(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("keras_qat.run.pipeline.quantize_after_training", interrupted)
    assert _quantize("a/best.keras", "--calibration-method", "minmax") == 130
    assert not (RUN / "results.json").exists()
    assert run_program(["diagnose", str(RUN)], app) == 2
    error = capsys.readouterr().err
    assert "baseline.keras (missing), ptq.keras (missing)" in error
    assert f"`keras-qat run --config {RUN / 'settings.json'}` makes the run anew." in error


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
    arguments = ["--data", "photos", "--task", "regression", "--monitor", "accuracy"]
    assert run_program(["run", "--model", "a/best.keras", *arguments], app) == 2
    assert "Received: " in capsys.readouterr().err


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
    assert run_program(arguments, app) == 2
    assert "target='tensorrt', and the model" in capsys.readouterr().err
    assert not Path("t.onnx").exists()


@pytest.mark.usefixtures("work")
def test_a_mistake_leaves_no_folder(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_program(["quantize", "a/best.keras", "--data", "phtos", "--output", "new"], app) == 2
    assert "phtos" in capsys.readouterr().err
    assert not Path("new").exists()


@pytest.mark.usefixtures("work")
@pytest.mark.parametrize(
    ("name", "told"), [("old.h5", "can't be read as a Keras model"), ("photos", "A model is read from a .keras")]
)
def test_a_model_that_is_not_a_keras_file(name: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("old.h5").write_bytes(b"\x89HDF")
    assert run_program(["run", "--model", name, "--data", "photos"], app) == 2
    assert told in capsys.readouterr().err


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


# What isn't the run's.


def _tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def precious(work: Path) -> Path:
    """A folder of the user's files, some with names like those of a run, as the current folder."""
    shutil.rmtree(work / "runs")
    shutil.copy(work / "a" / "best.keras", work / "baseline.keras")
    shutil.copytree(work / "photos", work / "qat_photos")
    (work / "qat_notes.txt").write_text("mine")
    (work / "settings.json").write_text('{"editor.tabSize": 4}')
    (work / "report.html").write_text("<html>mine</html>")
    return work


@pytest.mark.parametrize("model", ["baseline.keras", "a/best.keras"])
@pytest.mark.parametrize("folder", [".", "qat_photos", "a"])
def test_a_folder_of_other_files_is_refused(
    model: str, folder: str, precious: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = _tree(precious)
    arguments = ["quantize", model, "--data", "qat_photos", "--run-folder", folder]
    assert run_program(arguments, app) == 2
    error = capsys.readouterr().err
    assert "The folder is not that of a run, and holds other files: " in error
    assert f"Received: {folder!r}" in error
    assert min(path.name for path in Path(folder).iterdir()) in error
    assert _tree(precious) == before


@pytest.mark.usefixtures("work")
def test_a_run_made_again_keeps_what_others_put_into_its_folder(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious.txt").write_text("kept")
    (RUN / "qat_photos").mkdir()
    (RUN / "qat_photos" / "cat.png").write_bytes(b"cat")
    (RUN / "ptq-notes.md").write_text("mine")
    (RUN / "qat_saved_model").symlink_to(outside)
    assert _quantize("a/best.keras", "--seed", "3") == 0
    assert (RUN / "qat_photos" / "cat.png").read_bytes() == b"cat"
    assert (RUN / "ptq-notes.md").read_text() == "mine"
    assert not (RUN / "qat_saved_model").exists()
    assert (outside / "precious.txt").read_text() == "kept"


@pytest.mark.usefixtures("work")
@pytest.mark.parametrize("option", ["model", "data", "overrides"])
def test_a_run_does_not_remove_its_own_input(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The folder is that of a run which was interrupted, and then got an input of the next one."""
    (RUN / "settings.json").unlink()
    inputs = {"model": Path("a/best.keras"), "data": Path("photos"), "overrides": RUN / "none.json"}
    inputs["overrides"].write_text('{"rules": []}')
    names = {"model": "ptq.keras", "data": "ptq_saved_model", "overrides": "recipe.json"}
    moved = RUN / names[option]
    moved.unlink(missing_ok=True)
    inputs[option] = inputs[option].rename(moved)
    before = _tree(RUN)
    arguments = [str(inputs["model"]), "--data", str(inputs["data"]), "--overrides", str(inputs["overrides"])]
    assert run_program(["quantize", *arguments, "--run-folder", str(RUN)], app) == 2
    assert f"An input of this command would be replaced. Received: '{moved}'" in capsys.readouterr().err
    assert _tree(RUN) == before


@pytest.mark.usefixtures("work")
def test_a_run_without_its_mark_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """A file named settings.json may be the user's own `--config`."""
    (RUN / ".keras-qat.json").unlink()
    before = _tree(RUN)
    assert _quantize("a/best.keras", "--seed", "3") == 2
    assert "The folder is not that of a run" in capsys.readouterr().err
    assert _tree(RUN) == before


@pytest.mark.usefixtures("work")
@pytest.mark.parametrize("content", [b"", b"{", b"[]"])
def test_a_run_whose_settings_were_lost_is_made_again(content: bytes) -> None:
    (RUN / "settings.json").write_bytes(content)
    assert _quantize("a/best.keras", "--seed", "3") == 0


@pytest.mark.usefixtures("work")
def test_other_spellings_of_the_same_inputs_are_the_same_run(work: Path) -> None:
    arguments = ["quantize", str(work / "a" / "best.keras"), "--data", str(work / "photos"), "--target", "tensorrt"]
    assert run_program([*arguments, "--seed", "3", "--run-folder", str(RUN)], app) == 0


@pytest.mark.usefixtures("work")
def test_a_second_process_is_told_of_the_first(capsys: pytest.CaptureFixture[str]) -> None:
    with locked(RUN, "a run"):
        before = _tree(RUN)
        assert _quantize("a/best.keras", "--seed", "3") == 2
        assert run_program(["train", str(RUN), "--epochs", "1"], app) == 2
        assert _tree(RUN) == before
    error = capsys.readouterr().err
    assert error.count(f"Another process works in this folder: process {os.getpid()} on ") == 2
    assert run_program(["verify", str(RUN)], app) == 0


@pytest.mark.usefixtures("work")
@pytest.mark.parametrize(
    ("command", "lost", "told", "possible"),
    [
        ("train", ("ptq.keras", "placement.json"), "placement.json (missing), ptq.keras (empty)", "`keras-qat report`"),
        ("diagnose", ("baseline.keras",), "baseline.keras (empty)", "`keras-qat report`"),
        ("verify", ("ptq.onnx",), "ptq.onnx (empty)", "`keras-qat train` and `keras-qat diagnose`"),
        ("verify", ("ptq.onnx", "preprocessing.json"), "preprocessing.json (missing), ptq.onnx (empty)", "report"),
        ("diagnose", ("settings.json",), "settings.json (missing)", "Make the run anew"),
    ],
)
def test_files_that_a_run_lost_are_named(
    command: str, lost: Sequence[str], told: str, possible: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in lost:
        if name.endswith(".json"):
            (RUN / name).unlink()
        else:
            (RUN / name).write_bytes(b"")
    assert run_program([command, str(RUN)], app) == 2
    error = capsys.readouterr().err
    assert f"`keras-qat {command}` needs files that the run lacks: {told}. Received: '{RUN}'" in error
    assert possible in error


# The files that commands write.

OVER_INPUTS: dict[str, list[str]] = {
    "explain, model": ["explain", "--model", "a/best.keras", "--output", "a/best.keras"],
    "explain, model under another name": ["explain", "a/best.keras", "--output", "b/../a/best.keras"],
    "explain, overrides": ["explain", "a/best.keras", "--overrides", "rules.json", "--output", "rules.json"],
    "explain, ranges": ["explain", "a/best.keras", "--ranges", "r.json", "--output", "r.json"],
    "explain, config": ["explain", "a/best.keras", "--config", "options.json", "--output", "options.json"],
    "explain, link": ["explain", "a/best.keras", "--output", "link.md"],
    "explain, device": ["explain", "a/best.keras", "--output", "/dev/null"],
    "explain, pipe": ["explain", "a/best.keras", "--output", "pipe.md"],
    "explain, suffix": ["explain", "a/best.keras", "--output", "cat.png"],
    "evaluate, log over the model": ["evaluate", "cat.log", "--data", "photos", "--log-file", "cat.log"],
    "evaluate, pipe as log": ["evaluate", "m.onnx", "--data", "photos", "--log-file", "pipe.log"],
    "evaluate, log into a photo": ["evaluate", "m.onnx", "--data", "photos", "--log-file", "photos/00.png"],
    "evaluate, output over a result of a run": [
        "evaluate",
        "m.onnx",
        "--data",
        "photos",
        "--output",
        f"{RUN}/data.json",
    ],
    "benchmark, plot into the log": ["benchmark", "m.onnx", "--plot", "photos/00.jpeg"],
    "benchmark, two outputs": ["benchmark", "m.onnx", "--output", "x.json", "--plot", "x.json"],
    "build-engine, photo": ["build-engine", "m.onnx", "--engine", "openvino", "--output", "photos/00.png"],
    "build-engine, source": ["build-engine", "m.onnx", "--engine", "openvino", "--output", "m.onnx"],
    "export, model": ["export", "a/best.keras", "--output", "a/best.keras"],
    "export, SavedModel over photos": ["export", "a/best.keras", "--format", "saved-model", "--output", "photos"],
    "export, over a run": ["export", "a/best.keras", "--output", f"{RUN}/ptq.onnx"],
    "doctor, file": ["doctor", "r.json", "--output", "r.json"],
    "verify, model": ["verify", "m.onnx", "--model", "a/best.keras", "--output", "a/best.keras"],
    "report, over the run's settings": ["report", str(RUN), "--output", f"{RUN}/settings.json"],
    "report, over another page": ["report", str(RUN), str(RUN)],
    "diagnose, over the results": ["diagnose", str(RUN), "--output", f"{RUN}/results.json"],
    "evaluate, over the facts": ["evaluate", "m.onnx", "--data", "photos", "--output", "preprocessing.json"],
    "build-engine, external data": ["build-engine", "external.onnx", "--engine", "openvino"],
}


@pytest.mark.parametrize("mistake", OVER_INPUTS)
def test_an_output_replaces_nothing_of_the_users(mistake: str, work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in (
        "rules.json",
        "options.json",
        "r.json",
        "cat.log",
        "m.onnx",
        "cat.png",
        "preprocessing.json",
        "runs/report.html",
    ):
        Path(name).write_text("{}")
    model = onnx.load(RUN / "ptq.onnx")
    onnx.save_model(model, "external.onnx", save_as_external_data=True, location="external.bin", size_threshold=0)
    Path("link.md").symlink_to("rules.json")
    for name in ("pipe.md", "pipe.log"):
        os.mkfifo(name)
    before, names = _tree(work), sorted(work.rglob("*"))
    assert run_program(OVER_INPUTS[mistake], app) == 2
    assert "Received: " in capsys.readouterr().err
    assert _tree(work) == before
    assert sorted(work.rglob("*")) == names


@pytest.mark.usefixtures("work")
def test_export_saved_model_replaces_no_other_folder() -> None:
    model = keras.models.load_model("a/best.keras")
    for folder in (Path("photos"), Path("a/best.keras")):
        with pytest.raises(StorageError, match="which a SavedModel would replace"):
            export_saved_model(model, folder)
    export_saved_model(model, "saved")
    export_saved_model(model, "saved")
    Path("saved/notes.txt").write_text("mine")
    with pytest.raises(StorageError, match=r"notes\.txt"):
        export_saved_model(model, "saved")
