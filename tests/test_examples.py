"""The examples in a small form: each makes its data and its model, and its command goes from there to a file."""

import runpy
import shlex
from pathlib import Path
from typing import Any

import pytest

from keras_qat.cli.program import app, run_program

EXAMPLES = Path(__file__).parent.parent / "examples" / "tasks"

SMALL = {
    "segmentation": ({"images": 32, "epochs": 1}, ["mean", "IoU"]),
    "keypoints": ({"images": 60, "epochs": 1}, ["SQNR", "MAE"]),
    "anomaly": ({"parts": 60, "epochs": 1}, ["SQNR"]),
    "sensors": ({"windows": 120, "epochs": 1}, ["top-1"]),
    "detector": ({"images": 60, "epochs": 1}, ["scores_fine", "boxes_coarse"]),
}
"""{example: (arguments of its `main`, words in its table)}"""

QUICKLY = [
    *("--epochs", "1", "--batch-size", "8", "--calibration-images", "16", "--calibration-batch-size", "8"),
    *("--skip-saved-model", "--skip-diagnosis"),
]


def main_of(name: str) -> Any:
    return runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"]


def commands_of(name: str) -> list[str]:
    """The commands in the docstring of an example."""
    text = (EXAMPLES / f"{name}.py").read_text("utf-8")
    return [line.strip() for line in text.splitlines() if line.strip().startswith("keras-qat ")]


@pytest.mark.parametrize("name", SMALL)
def test_an_example_goes_from_data_to_a_file(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, words = SMALL[name]
    monkeypatch.chdir(tmp_path)
    main_of(name)(Path("work"), **arguments)
    (command,) = commands_of(name)
    assert run_program([*shlex.split(command)[1:], *QUICKLY], app) == 0
    out = capsys.readouterr().out
    assert all(word in out for word in words)
    assert ("top-1" in out) == (name == "sensors")
    assert {"ptq.onnx", "qat.onnx", "report.html"} <= {path.name for path in Path("work/run").iterdir()}


def test_faults_are_found_by_the_file_as_by_the_float_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import keras

    from keras_qat import export_onnx

    main = main_of("anomaly")
    main(tmp_path, parts=60, epochs=1)
    export_onnx(keras.models.load_model(tmp_path / "autoencoder.keras"), tmp_path / "float.onnx")
    main(tmp_path, judge=tmp_path / "float.onnx")
    words = capsys.readouterr().out.split()
    assert words[words.index("model") + 1].rstrip(",") == words[-1]


def test_two_inputs_in_python(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main_of("two_inputs")(tmp_path, samples=120, epochs=1)
    assert "INT8, fine-tuned: " in capsys.readouterr().out
    assert (tmp_path / "two_inputs.onnx").is_file()
