"""What takes the place of what, and when."""

from pathlib import Path

import pytest

from keras_qat.errors import StorageError
from keras_qat.storage import atomic_path, write_json


def test_a_file_never_takes_the_place_of_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "results"
    folder.mkdir()
    (folder / "precious").write_text("kept")
    with pytest.raises(StorageError, match="a folder is there"):
        write_json(folder, {})
    assert [path.name for path in tmp_path.rglob("*")] == ["results", "precious"]
    assert (folder / "precious").read_text() == "kept"


def test_a_folder_takes_the_place_of_a_folder(tmp_path: Path) -> None:
    target = tmp_path / "model"
    for name in ("old", "new"):
        with atomic_path(target) as temporary:
            temporary.mkdir()
            (temporary / name).touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["model", "new"]


def test_what_fails_leaves_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "value.json"
    write_json(target, 1)
    with pytest.raises(ZeroDivisionError), atomic_path(target) as temporary:
        temporary.write_text(str(1 / 0))
    assert target.read_text() == "1\n"
    assert list(tmp_path.iterdir()) == [target]
