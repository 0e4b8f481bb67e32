"""Paths that the system refuses to look at, and the empty name, raise errors with a readable message."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from keras_qat.data import Preprocessing, load_data, load_validation, require_source
from keras_qat.errors import DataError, StorageError, UserError, WeightsError
from keras_qat.files import paths, require_creatable, require_writable, write_text
from keras_qat.files import storage as file_system
from keras_qat.run import RunFolder, require_file_or_run

LONG = Path("x" * 300)
"""File systems allow 255 bytes."""

EIGHT = Preprocessing("unit", 8, 8)

CHECKS: dict[str, tuple[Callable[[Path], Any], type[UserError]]] = {
    "model": (paths.require_model_file, StorageError),
    "engine": (paths.require_engine_model, StorageError),
    "onnx": (paths.require_onnx_file, StorageError),
    "onnx or run": (require_file_or_run, StorageError),
    "run": (lambda path: RunFolder(path).require(), StorageError),
    "finished run": (lambda path: RunFolder(path).require_finished(), StorageError),
    "variant": (lambda path: RunFolder(path).require_model("QAT"), StorageError),
    "image": (paths.require_image, DataError),
    "weights": (paths.require_weights, WeightsError),
    "source": (require_source, DataError),
    "data": (lambda path: load_data(path, EIGHT, seed=0), DataError),
    "validation": (lambda path: load_validation(str(path), EIGHT, seed=0), DataError),
    "writable": (require_writable, StorageError),
    "creatable": (require_creatable, StorageError),
    "written": (lambda path: write_text(path, "x"), StorageError),
}


@pytest.mark.parametrize("check", CHECKS)
def test_a_name_that_is_too_long_raises_a_readable_error(check: str, tmp_path: Path) -> None:
    function, error = CHECKS[check]
    for path in (tmp_path / LONG, tmp_path / LONG / "below"):
        with pytest.raises(error, match=r"Received: ") as raised:
            function(path)
        assert raised.type is error
        assert str(path) in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_files_and_folders_are_told_apart() -> None:
    here = Path(__file__)
    for check, answers in (
        (file_system.is_there, (True, True, False)),
        (file_system.is_file, (True, False, False)),
        (file_system.is_folder, (False, True, False)),
    ):
        assert tuple(map(check, (here, here.parent, here / "below"))) == answers


def test_a_folder_that_may_not_be_entered_raises_a_readable_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """The refusal is simulated, since root, who may run the tests, enters every folder."""

    def refuse(path: Path, **_: Any) -> os.stat_result:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "stat", refuse)
    for check in (file_system.is_there, file_system.is_file, file_system.is_folder):
        with pytest.raises(WeightsError, match=r"Permission denied\. Received: 'closed/file'\. Name another one"):
            check(Path("closed/file"), WeightsError)


def test_the_empty_name_is_not_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for load in (require_source, lambda name: load_data(name, EIGHT, seed=0)):
        with pytest.raises(DataError, match=r"no data set or folder of that name\. Received: ''"):
            load("")
    require_source(".")
    with pytest.raises(DataError, match="There are no images in"):
        load_data(".", EIGHT, seed=0)
