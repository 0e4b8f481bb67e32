"""Atomic writing of files and folders, and strict JSON."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from keras_qat.errors import StorageError
from keras_qat.evaluation import Latency
from keras_qat.files import atomic_path, write_json
from keras_qat.machine import read_environment
from keras_qat.report import Record, Row
from keras_qat.report.record import load_record
from keras_qat.verify import TensorError


def test_a_file_never_replaces_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / "precious").write_text("kept")
    with pytest.raises(StorageError, match="a folder is there"):
        write_json(folder, {})
    assert [path.name for path in tmp_path.rglob("*")] == ["results", "precious"]
    assert (folder / "precious").read_text() == "kept"


def test_a_folder_replaces_a_folder(tmp_path: Path) -> None:
    target = tmp_path / "model"
    for name in ("old", "new"):
        with atomic_path(target) as temporary:
            temporary.mkdir()
            (temporary / name).touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["model", "new"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "value.json"
    write_json(target, 1)
    with pytest.raises(ZeroDivisionError), atomic_path(target) as temporary:
        temporary.write_text(str(1 / 0))
    assert target.read_text() == "1\n"
    assert list(tmp_path.iterdir()) == [target]


def strictly_read(path: Path) -> Any:
    """The value of a JSON file, read strictly by RFC 8259."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    return json.loads(path.read_text(), parse_constant=refuse)


def test_json_is_strict(tmp_path: Path) -> None:
    path = tmp_path / "value.json"
    write_json(path, {"a": math.nan, "b": [1.5, (math.inf, {"c": -math.inf})], "d": "NaN", "e": None, "f": 7})
    assert strictly_read(path) == {"a": None, "b": [1.5, [None, {"c": None}]], "d": "NaN", "e": None, "f": 7}
    path.write_text("[NaN]")
    with pytest.raises(AssertionError, match="NaN is not JSON"):
        strictly_read(path)


@pytest.mark.parametrize("worst", [0.0, 2.5, math.inf])
def test_an_infinite_error_is_written_as_null_with_a_reason(worst: float, tmp_path: Path) -> None:
    error, path = TensorError("relu_quantize", 0.25, worst), tmp_path / "error.json"
    write_json(path, error.to_dict())
    value = strictly_read(path)
    assert (value["worst"] is None) == ("reason" in value) == (worst == math.inf)
    assert TensorError.from_dict(value) == error


def test_a_record_with_an_infinite_error_is_read_back_unchanged(tmp_path: Path) -> None:
    timed = Latency(1.0, 2.0, 60, "CPU")
    errors = (TensorError("conv_quantize", 0.0, 1.0), TensorError("relu_quantize", 1.0, math.inf))
    row = Row("PTQ", 0.5, 0.5, timed, 0.1, 0.1, timed, 0.1, 0.1, None, 0.5, errors, 7)
    record = Record(
        *("net", "photos", "onnxruntime", 10, "ONNX Runtime"),
        rows=(row,),
        best_epoch=None,
        history=(),
        settings={},
        environment=read_environment(),
        seconds={},
    )
    write_json(tmp_path / "results.json", record.to_dict())
    assert strictly_read(tmp_path / "results.json")["rows"][0]["tensor_errors"][1]["worst"] is None
    assert load_record(tmp_path / "results.json") == record
