"""`--json` of the smaller commands: pure JSON on standard output, with the figures of the functions behind them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import pytest

from keras_qat import plan, trace
from keras_qat.cli.program import app, run_program
from keras_qat.placement import load_placement
from keras_qat.runtimes import EngineBuild

Program = Callable[..., Any]


@pytest.fixture
def program(capfd: pytest.CaptureFixture[str]) -> Program:
    """Run a command with `--json` and return the value that it prints."""

    def refuse(constant: str) -> None:
        pytest.fail(f"{constant} is not JSON")

    def call(*arguments: str | Path) -> Any:
        assert run_program([*map(str, arguments), "--json"], app) == 0
        return json.loads(capfd.readouterr().out, parse_constant=refuse)

    return call


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    x = keras.Input((8, 8, 3), name="image")
    model = keras.Model(x, keras.layers.ReLU(name="relu")(keras.layers.Conv2D(4, 3, name="conv")(x)))
    path = tmp_path_factory.mktemp("model") / "model.keras"
    model.save(path)
    return path


def _ranges(path: Path, **amax: float) -> Path:
    ranges = {name: {"amax": value, "method": "mse", "images": 8, "summary": None} for name, value in amax.items()}
    path.write_text(json.dumps(ranges))
    return path


def test_explain(program: Program, model_file: Path, tmp_path: Path) -> None:
    expected = plan(trace(keras.saving.load_model(model_file)).graph, "tensorrt")
    arguments = ("explain", "--model", model_file, "--target", "tensorrt")
    record = program(*arguments, "--ranges", _ranges(tmp_path / "ranges.json", image=2.0))
    assert record["ranges"]["image"]["amax"] == 2
    # The output is a valid placement.json.
    (tmp_path / "placement.json").write_text(json.dumps(program(*arguments)))
    assert load_placement(tmp_path / "placement.json") == expected


def test_explain_into_a_file(model_file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    arguments = ["explain", "--model", str(model_file), "--json", "--output", str(tmp_path / "placement.json")]
    assert run_program(arguments, app) == 0
    assert capfd.readouterr().out == ""
    assert load_placement(tmp_path / "placement.json").target == "onnxruntime"


def test_diff_ranges(program: Program, tmp_path: Path) -> None:
    before = _ranges(tmp_path / "before.json", gone=1.0, a=1.0, b=2.0, dead=0.0)
    after = _ranges(tmp_path / "after.json", a=1.0, b=6.0, dead=1.0, new=1.0)
    record = program("diff-ranges", before, after, "--worst", "1")
    # JSON has no infinity.
    assert [(change["tensor"], change["ratio"]) for change in record["changes"]] == [("dead", None), ("b", 3), ("a", 1)]
    assert (record["only_before"], record["only_after"]) == (["gone"], ["new"])


def test_build_engine(program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = EngineBuild(tmp_path / "a.engine", "tensorrt", "TensorRT 11", ("8.6",), 1.5, 1000, ("slow",))
    monkeypatch.setattr("keras_qat.runtimes.build_engine", lambda *_, **__: made)
    (tmp_path / "a.onnx").touch()
    assert program("build-engine", tmp_path / "a.onnx", "--engine", "tensorrt") == {
        "path": str(tmp_path / "a.engine"),
        "engine": "tensorrt",
        "version": "TensorRT 11",
        "compute_capabilities": ["8.6"],
        "seconds": 1.5,
        "size_bytes": 1000,
        "warnings": ["slow"],
    }


def test_prepare_imagenet(program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from keras_qat.data.imagenet import prepare

    made = prepare.Prepared({"train": 6, "val": 2}, 2, 4000, {"cat/a.JPEG": "CMYK JPEG"}, {})
    monkeypatch.setattr("keras_qat.data.prepare_imagenet", lambda *_, **__: made)
    record = program("prepare-imagenet", "--archives", tmp_path, "--output", tmp_path / "made")
    assert record["counts"] == {"train": 6, "val": 2}
    assert record["encoded"] == {"cat/a.JPEG": "CMYK JPEG"}
    assert (record["official"], record["output"]) == (False, str(tmp_path / "made"))
