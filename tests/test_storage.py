"""Atomic writing of files and folders, also when the power is cut; locks; strict JSON."""

import json
import math
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from keras_qat.errors import StorageError
from keras_qat.evaluation import Latency
from keras_qat.files import atomic, atomic_path, locked, waiting_lock, write_json
from keras_qat.machine import read_environment
from keras_qat.report import Record, Row
from keras_qat.report.record import load_record
from keras_qat.verify import TensorError
from power_cut import Disk, Loss, PowerCutError


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


def _write_file(path: Path, text: str) -> None:
    write_json(path, text)


def _write_folder(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.mkdir()
        (temporary / "variables").mkdir()
        (temporary / "variables" / "text").write_text(text)


def _read(path: Path) -> str:
    return (path / "variables" / "text").read_text() if path.is_dir() else json.loads(path.read_text())


Write = Callable[[Path, str], None]


def _cut(write: Write, folder: Path, loss: Loss, cut_after: int, patch: pytest.MonkeyPatch) -> str:
    """What is read after the power was cut while the second value replaced the first."""
    remove = atomic._remove
    target, scratch = folder / "value.json", folder.with_name(f"{folder.name}-scratch")
    folder.mkdir()
    scratch.mkdir()
    write(target, "first")
    with patch.context() as cut:
        disk = Disk(cut, scratch, cut_after)
        disk.synced |= {path.stat().st_ino for path in folder.rglob("*")}
        # Nothing is cleaned up when the power is gone.
        cut.setattr(atomic, "_remove", lambda path: None if disk.left == 0 else remove(path))
        with suppress(PowerCutError):
            write(target, "second")
    disk.lose(loss, folder)
    return _read(target)


@pytest.mark.parametrize("loss", ["contents", "names"])
@pytest.mark.parametrize(("write", "renamings"), [(_write_file, 1), (_write_folder, 2)])
def test_a_power_cut_leaves_the_old_or_the_new_value(
    write: Write, renamings: int, loss: Loss, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _forget_this_process(monkeypatch)
    for cut_after in range(renamings + 1):
        folder = tmp_path / f"cut-{cut_after}"
        # What the process left is put right by the next one that writes there.
        with suppress(FileNotFoundError):
            assert _cut(write, folder, loss, cut_after, monkeypatch) in {"first", "second"}
        _become_another_process(monkeypatch)
        write_json(folder / "other.json", 0)
        assert sorted(path.name for path in folder.iterdir()) == ["other.json", "value.json"]
        assert _read(folder / "value.json") in {"first", "second"}


def _forget_this_process(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(atomic, "_PROCESS", atomic._PROCESS)


def _become_another_process(patch: pytest.MonkeyPatch) -> None:
    host, pid, name = atomic._PROCESS.split("-")
    patch.setattr(atomic, "_PROCESS", f"{host}-{pid}-{int(name, 16) + 1 & 0xFFFFFFFF:08x}")


def test_the_simulated_disk_loses_what_is_not_synchronized(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atomic, "_sync", lambda _: None)
    with pytest.raises(json.JSONDecodeError):
        _cut(_write_file, tmp_path / "contents", "contents", 1, monkeypatch)
    assert _cut(_write_file, tmp_path / "names", "names", 1, monkeypatch) == "first"


def test_files_of_living_processes_are_left_alone(tmp_path: Path) -> None:
    host, _, _ = atomic._PROCESS.split("-")
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        names = {
            "living": f".value.{host}-{other.pid}-0123abcd-0.tmp.json",
            "of another host": f".value.00000000-{other.pid}-0123abcd-0.tmp.json",
            "dead": f".value.{host}-{2**22 + 1}-0123abcd-0.tmp.json",
            "old": f".value.00000000-{other.pid}-0123abcd-1.tmp.json",
            "the user's": ".value.tmp.json",
        }
        for name in names.values():
            (tmp_path / name).touch()
        os.utime(tmp_path / names["old"], (0, 0))
        write_json(tmp_path / "value.json", 1)
        left = {what for what, name in names.items() if (tmp_path / name).exists()}
        other.kill()
    assert left == {"living", "of another host", "the user's"}


def test_neither_links_nor_devices_are_replaced(tmp_path: Path) -> None:
    precious = tmp_path / "precious.json"
    precious.write_text("kept")
    (tmp_path / "link.json").symlink_to(precious)
    (tmp_path / "nowhere.json").symlink_to(tmp_path / "gone")
    os.mkfifo(tmp_path / "pipe.json")
    before = sorted(tmp_path.iterdir())
    for path in (*(tmp_path / f"{name}.json" for name in ("link", "nowhere", "pipe")), Path("/dev/null")):
        with pytest.raises(StorageError, match=r"replaces nothing but a file or folder\. Received: "):
            write_json(path, 1)
    assert sorted(tmp_path.iterdir()) == before
    assert precious.read_text() == "kept"


_HOLD = """
import sys
from pathlib import Path
from keras_qat.files import locked
with locked(Path(sys.argv[1]), "a run"):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_a_folder_is_locked_until_its_process_is_gone(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    command = [sys.executable, "-c", _HOLD, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:  # noqa: S603
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        message = rf"process {other.pid} on .*, a run since 20.*Received: "
        with pytest.raises(StorageError, match=message), locked(folder, "a run"):
            pytest.fail("both have the lock")
        other.kill()
    with locked(folder, "a run"):
        assert (folder / ".keras-qat.lock").exists()
    assert not (folder / ".keras-qat.lock").exists()


def test_a_lock_leaves_no_new_folder_in_which_nothing_was_written(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "runs" / "new", "a run"):
        _ = 1 / 0
    assert not list(tmp_path.iterdir())


def test_a_cache_is_filled_once(tmp_path: Path) -> None:
    path, told = tmp_path / "cache" / "value.json", list[str]()
    inside, done = threading.Event(), threading.Event()

    def fill() -> None:
        with waiting_lock(path, told.append):
            inside.set()
            done.wait(10)
            write_json(path, 1)

    thread = threading.Thread(target=fill)
    thread.start()
    inside.wait(10)
    threading.Timer(0.3, done.set).start()
    with waiting_lock(path, told.append):
        assert path.exists()
    thread.join()
    assert len(told) == 1
    assert [item.name for item in path.parent.iterdir()] == ["value.json"]
