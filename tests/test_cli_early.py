"""A mistake in a path or in the name of a target is reported before TensorFlow is loaded, which takes seconds."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from keras_qat.data import DATA_SETS
from keras_qat.data.names import EMBEDDED

LONG = "x" * 300
"""A name that is longer than file systems allow."""

MISTAKES = {
    "run, model": ["run", "--model", "none.keras"],
    "run, one of several models": ["run", "--models", "resnet50", "none.keras"],
    "run, weights": ["run", "--weights", "none.weights.h5"],
    "run, data": ["run", "--data", "nowhere"],
    "run, data of a kind that isn't read": ["run", "--data", "text.json"],
    "run, data of a module without that function": ["run", "--data", "keyword:load"],
    "run, data of a module that isn't there": ["run", "--data", "no_such_module:load"],
    "run, overrides": ["run", "--overrides", "none.json"],
    "run, output below a file": ["run", "--output", "text.json/runs"],
    "run, its folder is a file": ["run", "--output", "files"],
    "run, run folder is a file": ["run", "--run-folder", "text.json"],
    "run, target": ["run", "--target", "tpu"],
    "run, name too long": ["run", "--model", LONG],
    "run, weights of too long a name": ["run", "--weights", f"{LONG}.h5"],
    "run, options of too long a name": ["run", "--config", f"{LONG}.yaml"],
    "run, output of too long a name": ["run", "--output", LONG],
    "run, empty data": ["run", "--data", ""],
    "quantize, model": ["quantize", "none.keras", "--data", "digits"],
    "quantize, model that is text": ["quantize", "text.keras", "--data", "digits"],
    "quantize, data": ["quantize", "zip.keras", "--data", "nowhere"],
    "quantize, data of too long a name": ["quantize", "zip.keras", "--data", LONG],
    "quantize, empty data": ["quantize", "zip.keras", "--data", ""],
    "quantize, overrides": ["quantize", "zip.keras", "--data", "digits", "--overrides", "none.json"],
    "quantize, output": ["quantize", "zip.keras", "--data", "digits", "--output", "text.json"],
    "train, run": ["train", "nowhere"],
    "train, run of too long a name": ["train", LONG],
    "train, data": ["train", "begun", "--data", "nowhere"],
    "train, run without models": ["train", "begun"],
    "export, model": ["export", "none.keras"],
    "export, output": ["export", "zip.keras", "--output", "text.json/a.onnx"],
    "export, output that is a folder": ["export", "zip.keras", "--output", "begun"],
    "export, SavedModel": ["export", "zip.keras", "--format", "saved-model", "--output", "text.json/a"],
    "export, SavedModel over a file": ["export", "zip.keras", "--format", "saved-model", "--output", "text.json"],
    "export, output of too long a name": ["export", "zip.keras", "--output", f"{LONG}.onnx"],
    "export, SavedModel of too long a name": ["export", "zip.keras", "--format", "saved-model", "--output", LONG],
    "export, target": ["export", "zip.keras", "--target", "tpu"],
    "build-engine, model": ["build-engine", "none.onnx", "--engine", "openvino"],
    "build-engine, model of too long a name": ["build-engine", f"{LONG}.onnx", "--engine", "openvino"],
    "build-engine, output": ["build-engine", "text.onnx", "--engine", "openvino", "--output", "begun"],
    "verify, file": ["verify", "none.onnx"],
    "verify, file of too long a name": ["verify", LONG],
    "verify, run": ["verify", "empty"],
    "verify, model": ["verify", "text.onnx", "--model", "none.keras"],
    "verify, placement": ["verify", "text.onnx", "--placement", "none.json"],
    "verify, data": ["verify", "text.onnx", "--data", "nowhere"],
    "verify, output": ["verify", "text.onnx", "--output", "verify.txt"],
    "evaluate, file": ["evaluate", "none.onnx", "--data", "digits"],
    "evaluate, file of too long a name": ["evaluate", LONG, "--data", "digits"],
    "evaluate, image of too long a name": ["evaluate", "text.onnx", "--image", LONG],
    "evaluate, empty data": ["evaluate", "text.onnx", "--data", ""],
    "evaluate, compare": ["evaluate", "text.onnx", "--data", "digits", "--compare", "none.onnx"],
    "evaluate, data": ["evaluate", "text.onnx", "--data", "nowhere"],
    "evaluate, image": ["evaluate", "text.onnx", "--image", "none.jpg"],
    "evaluate, output": ["evaluate", "text.onnx", "--data", "digits", "--output", "begun"],
    "benchmark, file": ["benchmark", "text.onnx", "none.onnx"],
    "benchmark, file of too long a name": ["benchmark", LONG],
    "benchmark, output": ["benchmark", "text.onnx", "--output", "a.txt"],
    "benchmark, plot": ["benchmark", "text.onnx", "--plot", "text.json/a.png"],
    "diagnose, run": ["diagnose", "nowhere"],
    "diagnose, run without models": ["diagnose", "begun"],
    "diagnose, run of too long a name": ["diagnose", LONG],
    "diagnose, data": ["diagnose", "begun", "--data", "nowhere"],
    "report, run": ["report", "nowhere"],
    "report, run of too long a name": ["report", LONG],
    "report, runs of too long a name": ["report", LONG, "begun"],
    "report, run that hasn't finished": ["report", "begun"],
    "explain, model": ["explain", "none.keras"],
    "explain, model of too long a name": ["explain", "--model", f"{LONG}.keras"],
    "explain, output of too long a name": ["explain", "--output", LONG],
    "explain, overrides": ["explain", "--overrides", "none.json"],
    "explain, ranges": ["explain", "--ranges", "none.json"],
    "explain, output": ["explain", "--output", "begun"],
    "explain, target": ["explain", "resnet50", "--target", "tpu"],
    "diff-ranges, file": ["diff-ranges", "text.json", "none.json"],
    "doctor, file": ["doctor", "none.onnx"],
    "doctor, file of too long a name": ["doctor", f"{LONG}.onnx"],
    "doctor, output": ["doctor", "text.onnx", "--output", "a.txt"],
}

# The program `keras-qat`, in one process for all mistakes, since each fails before anything is loaded.
_PROGRAM = """
import contextlib, io, json, sys
sys.argv = ["keras-qat"]
from keras_qat.cli.program import app, run_program
from keras_qat.progress import CONSOLE
answers = {}
for name, arguments in json.loads(sys.stdin.read()).items():
    CONSOLE.file = io.StringIO()
    code = run_program(arguments, app)
    loaded = sorted({"tensorflow", "keras", "onnxruntime"} & set(sys.modules))
    answers[name] = [code, " ".join(CONSOLE.file.getvalue().split()), loaded]
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str, list[str]]]:
    """Exit code, message and loaded modules, for each mistake."""
    folder = tmp_path_factory.mktemp("work")
    for name in ("text.keras", "text.onnx", "text.json"):
        (folder / name).write_text("not what its name says")
    (folder / "zip.keras").write_bytes(b"PK\5\6" + bytes(18))  # an archive of nothing
    for name in ("begun", "empty"):
        (folder / name).mkdir()
    (folder / "begun" / "settings.json").write_text("{}")
    (folder / "files").mkdir()
    (folder / "files" / "resnet50-digits-onnxruntime").touch()
    before = sorted(folder.rglob("*"))
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", _PROGRAM],
        cwd=folder,
        input=json.dumps(MISTAKES),
        capture_output=True,
        text=True,
        check=True,
    )
    assert sorted(folder.rglob("*")) == before, "a mistake leaves no files behind"
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_reported_before_slow_modules_are_loaded(
    answers: dict[str, tuple[int, str, list[str]]], mistake: str
) -> None:
    code, message, loaded = answers[mistake]
    assert (code, loaded) == (2, []), message
    assert message.startswith("error: ")
    assert "Received: " in message


def test_the_names_of_data_sets_are_those_that_are_loaded() -> None:
    assert set(DATA_SETS) == EMBEDDED


def test_an_archive_of_something_else_is_refused_without_keras(tmp_path: Path) -> None:
    from keras_qat.errors import StorageError
    from keras_qat.files import require_model_file

    path = tmp_path / "empty.keras"
    path.write_bytes(b"PK\5\6" + bytes(18))
    with pytest.raises(StorageError, match=r"can't be read as a Keras model.*Received: .*empty\.keras"):
        require_model_file(path)
