"""The fault harness: a bounded part of its tries, and that it notices each kind of failure."""

import os
import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

_TRIES = 50
"""The number of cheap tries, at least one of each kind."""

_CUT_OFF = {"kill at a rename", "power cut", "full disk"}

_BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture(scope="module", autouse=True)
def _harness_on_path() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(_BENCHMARKS))
        yield


# --- the harness notices


def _answer(**facts: object) -> object:
    from faults.handle import Answer

    return Answer(**{"code": 0, "out": "", "err": "", "seconds": 1.0, **facts})


@pytest.mark.parametrize(
    ("facts", "ending"),
    [
        ({"hung": True, "code": None}, "hang"),
        ({"code": 1, "err": "Traceback (most recent call last)\nValueError: x"}, "traceback"),
        ({"code": 2, "err": "Traceback (most recent call last)\nReceived: 3"}, "traceback"),
        ({"code": 4, "err": "error: a bug"}, "traceback"),
        ({"code": -11}, "traceback"),
        ({"code": 2, "err": "error: no. Received: 3."}, "clear error"),
        ({"code": 2, "err": "error: Unknown option\nSee `keras-qat run --help`."}, "clear error"),
        ({"code": 2, "err": "error: no"}, "unclear error"),
        ({"code": 3, "err": "error: another class"}, "exit 3"),
        ({"code": 0}, "worked"),
    ],
)
def test_the_end_of_a_process_is_judged(facts: dict[str, object], ending: str) -> None:
    from faults.judging import judge

    assert judge(_answer(**facts), None, {}).ending == ending


@pytest.mark.parametrize(
    ("detectable", "err", "found", "ending"),
    [
        (True, "", {"a": 2}, "silent wrong"),
        (True, "", {}, "silent wrong"),
        (False, "", {"a": 2}, "undetectable"),
        (True, "The cache is broken; made again.", {"a": 2}, "worked"),
        (True, "took 2.1 s", {"a": 2}, "silent wrong"),
        (True, "", {"a": 1, "b": 3}, "worked"),
    ],
)
def test_another_result_without_a_word_is_wrong(detectable: bool, err: str, found: dict[str, int], ending: str) -> None:
    """What differs between two undamaged runs isn't compared, and the same messages with other times say nothing."""
    from faults.judging import judge, make_reference

    undamaged = [(_answer(err="took 1.0 s"), {"a": 1, "b": i}) for i in range(2)]
    reference = make_reference(*undamaged)
    assert judge(_answer(err=err), reference, found, detectable=detectable).ending == ending


def test_every_change_of_the_users_files_is_seen(tmp_path: Path) -> None:
    from faults.judging import litter, lost, snapshot

    (tmp_path / "photos").mkdir()
    for name in ("notes.txt", "photos/a.png", "photos/b.png", "made.json"):
        (tmp_path / name).write_text("the user's")
    (tmp_path / "link").symlink_to("notes.txt")
    before = snapshot(tmp_path)
    (tmp_path / "notes.txt").write_text("another's")
    (tmp_path / "photos/a.png").unlink()
    (tmp_path / "link").unlink()
    (tmp_path / "link").write_text("the user's")
    (tmp_path / "made.json").write_text("of this command")
    (tmp_path / "photos" / ".b-0123abcd.png").touch()
    after = snapshot(tmp_path)
    assert {line.split(" is ")[0] for line in lost(before, after, {"made.json"})} == {
        "notes.txt",
        "photos/a.png",
        "link",
    }
    assert litter(before, after) == ["photos/.b-0123abcd.png"]


@pytest.mark.parametrize("flushed", [True, False])
def test_a_power_cut_loses_what_was_not_flushed(tmp_path: Path, flushed: bool) -> None:
    """A disk may have written what was not flushed, but over several cuts it has not."""
    survived = [_survives_a_cut(tmp_path / str(seed), seed, flushed=flushed) for seed in range(6)]
    assert all(survived) is flushed


def _survives_a_cut(folder: Path, seed: int, *, flushed: bool) -> bool:
    """Write results.json by a rename, with or without flushing file and folder; whether a power cut leaves it whole."""
    from faults.injected import Disk

    folder.mkdir()
    (folder / "old.txt").write_text("old")
    os.utime(folder / "old.txt", (0, 0))
    disk = Disk(folder)
    target, temporary = folder / "results.json", folder / ".results.json"
    temporary.write_text("whole")
    disk.renaming(target)
    temporary.rename(target)
    for place in (target, folder) if flushed else ():
        descriptor = os.open(place, os.O_RDONLY)
        disk.flush(descriptor)
        os.close(descriptor)
    disk.cut(random.Random(seed))  # noqa: S311
    assert (folder / "old.txt").read_text() == "old"
    return target.exists() and target.read_text() == "whole"


# --- keras-qat withstands


@pytest.mark.skipif(shutil.which("unshare") is None, reason="the harness is for Linux")
def test_keras_qat_withstands_a_few_faults_of_every_kind(tmp_path: Path) -> None:
    """The same tries each time. An hour of others: `python benchmarks/robustness.py`."""
    from faults.handle import may_mount
    from faults.interruptions import QUICK, interruption_kinds
    from faults.judging import FAILURES
    from robustness import Session, all_kinds, play_all, schedule

    interruptions = [kind for kind in interruption_kinds(QUICK, mountable=may_mount()) if kind.name in _CUT_OFF]
    cheap = [kind for kind in all_kinds() if kind.cheap]
    tries = [*schedule(interruptions, len(interruptions)), *schedule(cheap, _TRIES)]
    found = play_all(Session(iter(tries), seed=1, end=time.monotonic() + 600), tmp_path, patience=30)
    failed = [row for row in found if row.ending in FAILURES]
    assert not failed, "\n".join(f"{row.ending}: {row.name}: {row.command}: {row.reason}" for row in failed)
    assert len(found) == len(tries)
    assert {kind.name for kind in cheap} == {row.kind for row in found} - _CUT_OFF


def test_what_is_kept_of_a_failed_try_has_an_end(tmp_path: Path) -> None:
    """Copying the folder's devices would fill the disk."""
    from robustness import _special

    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    assert _special(str(tmp_path), ["fifo", "loop", "folder", "file"]) == ["fifo"]
