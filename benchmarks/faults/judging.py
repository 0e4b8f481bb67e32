"""How a try ended: one word for each, by what was printed, the exit code, and what became of the user's files.

A result is *silently wrong* if the command succeeds, says nothing that it does not say of the whole file, and gives
another result, although the damage could have been seen. That is:

- any damage of a format with checksums: .keras, .npz (zip), PNG, TFRecord, .tar.gz;
- a file that is empty or cut off, in formats that know their length: ONNX, HDF5, JPEG, WebP, GIF, TIFF, BMP, JSON;
- a number that isn't one (`1.5` or `nan` for a whole number, `nan` for a number) which is taken.

A changed result of another damage counts as *undetectable*: nothing in the file says what its bytes were. Results are
compared with those of the undamaged command, which is run twice: only what was the same both times is compared.
"""

import hashlib
import json
import math
import os
import re
import stat
import zipfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from faults.handle import Answer

Ending = Literal[
    "clear error",
    "worked",
    "exit 3",
    "undetectable",
    "unclear error",
    "litter",
    "silent wrong",
    "traceback",
    "hang",
    "lost",
]
ENDINGS: tuple[Ending, ...] = Ending.__args__  # type: ignore[attr-defined]
FAILURES: tuple[Ending, ...] = ("silent wrong", "traceback", "hang", "lost")
"""What must never be."""

GATE = 3
_MISTAKE, _INTERRUPTED = 2, 130

_TRACEBACK = "Traceback (most recent call last)"
_NUMBERS = re.compile(r"\d+(\.\d+)?")
_TIMES = re.compile(r"\d{4}-\d\d-\d\d.\d\d:\d\d(:\d\d)?|\d+\.\d+ s\b")
_UNSTABLE = re.compile("second|time|_ms|latency|environment|machine|memory|disk|version")
_COMPARED = {".json", ".onnx", ".md", ".bin", ".txt", ".dot"}
_ZIPPED = {".keras", ".npz"}
_KERAS_TIMES = "metadata.json"
_SAME = 1e-4
_TEMPORARY = re.compile(r"^\..*-[0-9a-f]{8}")
_LARGE = 1 << 24


@dataclass(frozen=True)
class Verdict:
    """How a try ended, and why that is thought."""

    ending: Ending
    reason: str = ""


@dataclass(frozen=True)
class Reference:
    """What a command gives if nothing is wrong: the parts that are equal whenever it runs."""

    code: int | None
    seconds: float
    results: Mapping[str, Any]
    lines: Collection[str]
    calls: tuple[str, ...] = ()


Snapshot = Mapping[str, str]


def snapshot(folder: Path) -> Snapshot:
    """{path below the folder: what is there}: for a file its digest, for a link its target, else the kind of file."""
    found = {}
    for path in _walk(folder):
        kind = path.lstat()
        if stat.S_ISLNK(kind.st_mode):
            what = f"link to {path.readlink()}"
        elif stat.S_ISREG(kind.st_mode):
            what = _digest(path) if kind.st_size < _LARGE else f"{kind.st_size} bytes"
        else:
            what = f"kind {stat.S_IFMT(kind.st_mode):o}"
        found[str(path.relative_to(folder))] = what
    return found


def _digest(path: Path) -> str:
    """The content of a file. Of a .keras file the members count, since each writing of it notes the time."""
    members = _members(path) if path.suffix == ".keras" else None
    if members is not None:
        return repr([(item.filename, item.CRC) for item in members if item.filename != _KERAS_TIMES])
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _walk(folder: Path) -> Iterator[Path]:
    for root, folders, files in os.walk(folder):
        for name in (*files, *(name for name in folders if (Path(root) / name).is_symlink())):
            yield Path(root) / name


def lost(before: Snapshot, after: Snapshot, allowed: Collection[str]) -> list[str]:
    """The files that are gone or changed, except what is or lies below an allowed path."""
    return [
        f"{path} is {'gone' if path not in after else 'another'}"
        for path, what in before.items()
        if after.get(path) != what and not _is_within(path, allowed)
    ]


def _is_within(path: str, allowed: Collection[str]) -> bool:
    return any(path == name or path.startswith(f"{name}/") for name in allowed)


def litter(before: Snapshot, after: Snapshot) -> list[str]:
    """Temporary files that weren't there before."""
    return [path for path in after if path not in before and any(map(_TEMPORARY.match, Path(path).parts))]


def results(folder: Path, answer: Answer, outputs: Collection[str]) -> dict[str, Any]:
    """Everything comparable that a command gave, as a flat mapping: its standard output, and the files that it wrote.

    Left out are times, and files that hold times throughout or depend on the order of threads, such as a page or a
    SavedModel.
    """
    found: dict[str, Any] = {}
    _flatten("standard output", answer.out, found)
    for name in outputs:
        place = folder / name
        for path in sorted(_walk(place)) if place.is_dir() else [place]:
            if not path.is_symlink() and path.is_file():
                _read(str(path.relative_to(folder)), path, found)
    return found


def _read(name: str, path: Path, found: dict[str, Any]) -> None:
    members = _members(path) if path.suffix in _ZIPPED else None
    if members is not None:
        found.update({f"{name}/{member.filename}": member.CRC for member in members})
    elif path.suffix == ".json":
        _flatten(name, path.read_text("utf-8", errors="replace"), found)
    elif path.suffix in _COMPARED or "-of-" in path.name:
        found[name] = hashlib.sha256(path.read_bytes()).hexdigest()


def _members(path: Path) -> list[zipfile.ZipInfo] | None:
    """The members of an archive; `None` if it isn't one, or damage has made it unreadable."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError):
        return None


def _flatten(name: str, text: str, found: dict[str, Any]) -> None:
    try:
        _flatten_json(name, json.loads(text), found)
    except (ValueError, RecursionError):
        found.update({f"{name}, line {i}": _TIMES.sub("#", line) for i, line in enumerate(text.splitlines())})


def _flatten_json(name: str, value: Any, found: dict[str, Any]) -> None:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if items is not None:
        for key, item in items:
            _flatten_json(f"{name}/{key}", item, found)
    elif not _UNSTABLE.search(name):
        found[name] = value


def make_reference(first: tuple[Answer, Mapping[str, Any]], second: tuple[Answer, Mapping[str, Any]]) -> Reference:
    """What is common to two runs of one command."""
    (one, found), (other, again) = first, second
    common = {name: value for name, value in found.items() if name in again and _same(again[name], value)}
    return Reference(
        one.code,
        max(one.seconds, other.seconds),
        common,
        frozenset(_words(one.err) | _words(other.err)),
        tuple(one.found.get("calls", ())),
    )


def _words(text: str) -> set[str]:
    return {_NUMBERS.sub("#", line).strip() for line in text.splitlines()} - {""}


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=_SAME, abs_tol=_SAME)
    return bool(one == other)


def difference(reference: Reference, found: Mapping[str, Any]) -> str:
    """The first result that differs from the reference; empty if none does."""
    for name, value in reference.results.items():
        if name not in found:
            return f"{name} is missing"
        if not _same(found[name], value):
            return f"{name}: {str(found[name])[:80]!r}, not {str(value)[:80]!r}"
    return ""


def judge_process(answer: Answer) -> Verdict | None:
    """What can be said of a process alone: a hang, a death, a traceback or an error without what was received."""
    if answer.hung:
        return Verdict("hang", f"no end after {answer.seconds:.0f} s")
    if _TRACEBACK in answer.err or _TRACEBACK in answer.out:
        lines = [line for line in answer.err.splitlines() if line.strip()] or [""]
        return Verdict("traceback", lines[-1][:200])
    if answer.code is None or answer.code < 0:
        return Verdict("traceback", f"the process died of signal {-(answer.code or 0)}: {answer.err[-200:]}")
    if answer.code not in {0, _MISTAKE, GATE, _INTERRUPTED}:
        return Verdict("traceback", f"exit code {answer.code}: {answer.err[-200:].strip()}")
    if answer.code == _MISTAKE:
        message = " ".join(answer.err.split())
        clear = "Received:" in message or "See `keras-qat" in message
        return Verdict("clear error" if clear else "unclear error", message[-200:])
    return None


def judge(
    answer: Answer,
    reference: Reference | None,
    found: Mapping[str, Any],
    *,
    detectable: bool = False,
    must_fail: bool = False,
) -> Verdict:
    """How one command ended that read something wrong.

    Args:
        answer: how it ended.
        reference: what it gives if nothing is wrong, if that is to be compared.
        found: what it gave, from `results`.
        detectable: whether the damage could have been seen.
        must_fail: whether the command must not succeed.
    """
    verdict = judge_process(answer)
    if verdict is None and must_fail:
        verdict = Verdict("silent wrong", "it was taken")
    if verdict is None and answer.code != 0:
        gate = answer.code == GATE
        verdict = Verdict("exit 3" if gate else "unclear error", answer.err.strip()[-200:])
    if verdict is not None:
        return verdict
    changed = "" if reference is None else difference(reference, found)
    said = _words(answer.err) - set(() if reference is None else reference.lines)
    if not changed:
        return Verdict("worked")
    if said:
        return Verdict("worked", f"with the message {min(said)[:120]!r}")
    return Verdict("silent wrong" if detectable else "undetectable", changed)
