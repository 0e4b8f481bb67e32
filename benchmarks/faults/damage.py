"""Damaged files: bits flipped, cut off, zeroed, emptied, swapped, with garbage behind them; JSON edited by hand."""

import json
import os
import random
import shutil
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from faults.commands import CALLS, Call, options_of
from faults.tries import Kind, Try, enumerated
from faults.user_folder import COLOURS, KEPT_CACHE, NETWORK, PICTURES

Damage = Callable[[bytes, random.Random], bytes]


def _flipped(data: bytes, choice: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(choice.choice((1, 1, 1, 8)) if data else 0):
        changed[choice.randrange(len(data))] ^= 1 << choice.randrange(8)
    return bytes(changed)


def _cut_off(data: bytes, choice: random.Random) -> bytes:
    return data[: choice.randrange(1, max(2, len(data)))]


def _zeroed(data: bytes, choice: random.Random) -> bytes:
    kept = choice.randrange(max(1, len(data) - 1))
    return data[:kept] + bytes(len(data) - kept)


def _emptied(_: bytes, __: random.Random) -> bytes:
    return b""


def _appended(data: bytes, choice: random.Random) -> bytes:
    return data + choice.randbytes(choice.choice((1, 100, 10_000)))


def _random(data: bytes, choice: random.Random) -> bytes:
    return choice.randbytes(len(data) or 1)


DAMAGES: Mapping[str, Damage] = {
    "flipped": _flipped,
    "cut off": _cut_off,
    "zeroed": _zeroed,
    "emptied": _emptied,
    "appended": _appended,
    "random": _random,
}


def _unlink(path: Path) -> None:
    path.unlink()


def _to_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _to_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _to_loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def _to_device(path: Path) -> None:
    path.unlink()
    with suppress(PermissionError):
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))


REPLACEMENTS: Mapping[str, Callable[[Path], None]] = {
    "removed": _unlink,
    "replaced by a FIFO": _to_fifo,
    "replaced by a folder": _to_folder,
    "replaced by a link to itself": _to_loop,
    "replaced by /dev/zero": _to_device,
}

_ODD: tuple[Any, ...] = (
    *(
        None,
        True,
        -1,
        0,
        1.5,
        10**30,
        -(10**400),
        1e308,
        float("nan"),
        float("inf"),
        "",
        "1",
        "../..",
        "\x00",
        "é\u202e",
    ),
    *([], {}, [[]], {"": None}, ["a"] * 1000, "x" * 100_000, json.loads("[" * 500 + "]" * 500)),
)


def _edited(data: bytes, choice: random.Random) -> bytes:
    """JSON with one value replaced, one removed, one added, or nested too deep."""
    value = json.loads(data)
    if choice.random() < 0.1:  # noqa: PLR2004
        depth = choice.choice((1000, 200_000))
        return b"[" * depth + b"]" * depth
    place, key = value, None
    while isinstance(place, dict | list) and place and (key is None or choice.random() < 0.8):  # noqa: PLR2004
        inner = place if key is None else place[key]
        if not isinstance(inner, dict | list) or not inner:
            break
        place, key = inner, choice.choice(list(inner) if isinstance(inner, dict) else range(len(inner)))
    if key is None:
        return json.dumps(choice.choice(_ODD)).encode()
    match choice.randrange(4):
        case 0:
            del place[key]
        case 1 if isinstance(place, dict):
            place["unheard-of"] = choice.choice(_ODD)
        case _:
            place[key] = choice.choice(_ODD)
    return json.dumps(value).encode()


_EDITS: Mapping[str, Damage] = {"edited": _edited, "edited otherwise": _edited, "edited once more": _edited}

_CHECKED = frozenset(DAMAGES)
"""Formats with checksums: every damage can be seen. What is appended doesn't change what is there."""

_LENGTH_KNOWN = frozenset({"cut off", "emptied", "random"})
_RAW = frozenset({"cut off", "emptied"})
"""Plain numbers: other numbers in their place are as good."""

_IN_FOLDERS = frozenset({"bmp", "gif", "jpg", "png", "webp"})
"""Formats that are read from folders; others only as a single image."""

_TEXT = frozenset({"emptied", "random"})


@dataclass(frozen=True)
class FileKind:
    """A kind of file and the commands that read it.

    Args:
        name: of the kind.
        files: patterns of the files, one of which is damaged.
        calls: commands, one of which reads it.
        detectable: damages that can be seen.
        first: a command that makes the file.
        before: prepares the folder for it.
    """

    name: str
    files: tuple[str, ...]
    calls: tuple[Call, ...]
    detectable: frozenset[str]
    first: Call | None = None
    before: Callable[[Path], None] | None = None


def _call(command: str, *more: str, writes: tuple[str, ...] | None = None, **given: Any) -> Call:
    """A cheap call with other values: positional ones by their names, options with `_` for `-`."""
    base = CALLS[command]
    options = {name if name.isupper() else f"--{name.replace('_', '-')}": value for name, value in given.items()}
    changed = base.changed(options, *more)
    return changed if writes is None else Call(changed.command, changed.given, writes, changed.keeps, changed.more)


def _without(call: Call, *names: str) -> Call:
    given = {name: value for name, value in call.given.items() if name not in names}
    return Call(call.command, given, call.writes, call.keeps, call.more)


def _use_cache(folder: Path) -> None:
    shutil.move(folder / KEPT_CACHE, folder / "cache")


def _evaluate(file: str, *more: str, **given: Any) -> Call:
    """Evaluate a file; a SavedModel is code, which needs trust."""
    trust = ("--trust",) if any(option.name == "--trust" for option in options_of("evaluate")) else ()
    return _call("evaluate", *trust, *more, FILE=file, **given)


def _picture(kind: str) -> str:
    return f"pictures/{kind}/{COLOURS[0]}/0.{kind}"


def _image_calls(kind: str) -> tuple[Call, ...]:
    single = _without(_call("evaluate", FILE="mine.onnx", image=_picture(kind)), "--data", "--seed")
    if kind not in _IN_FOLDERS:
        return (single,)
    folder = {"data": f"pictures/{kind}"}
    return single, _evaluate("mine.onnx", **folder), _evaluate("mine.onnx", "--skip-bad", **folder)


def file_kinds() -> tuple[FileKind, ...]:
    """Every kind of file that a command reads."""
    run, mine = CALLS["verify"], "runs/mine"
    by_name = {"--model": NETWORK, "--data": "classes", "--skip-fine-tuning": None, "--skip-diagnosis": None}
    weights = CALLS["run"].changed({**by_name, "--weights": "tiny.weights.h5"})
    single = _evaluate("mine.onnx", engine="onnxruntime")
    readers = (CALLS["report"], CALLS["verify"], CALLS["diagnose"], CALLS["train"])
    digits = _without(weights.changed({"--data": "digits"}), "--weights")
    records = _evaluate("mine.onnx", data="records")
    placement = _call("verify", PATH="mine.onnx", model=f"{mine}/ptq.keras", placement=f"{mine}/placement.json")
    pictures = tuple(
        FileKind(f"image .{kind}", (_picture(kind),), _image_calls(kind), _CHECKED if kind == "png" else _LENGTH_KNOWN)
        for kind in PICTURES
    )
    return (
        FileKind("baseline.keras", ("baseline.keras",), (CALLS["explain"], CALLS["quantize"], single), _CHECKED),
        FileKind(".keras of a run", (f"{mine}/*.keras",), (CALLS["export"], run, CALLS["diagnose"]), _CHECKED),
        FileKind(".weights.h5", ("tiny.weights.h5",), (weights,), _LENGTH_KNOWN),
        FileKind(
            "ONNX",
            ("mine.onnx",),
            (single, CALLS["doctor"], CALLS["benchmark"], CALLS["build-engine"], placement),
            _LENGTH_KNOWN,
        ),
        FileKind("ONNX of a run", (f"{mine}/*.onnx",), (run, CALLS["evaluate"]), _LENGTH_KNOWN),
        FileKind(
            "ONNX external data",
            ("external/*",),
            (
                _call("doctor", FILES="external/model.onnx", target=("onnxruntime",)),
                _evaluate("external/model.onnx", preprocessing="raw:16"),
                _call("verify", PATH="external/model.onnx", model=f"{mine}/ptq.keras"),
                _call("benchmark", FILES="external/model.onnx"),
            ),
            _RAW,
        ),
        FileKind(
            "OpenVINO",
            ("mine.xml", "mine.bin"),
            (_evaluate("mine.xml", preprocessing="raw:16"),),
            frozenset({"emptied"}),
        ),
        FileKind(
            "SavedModel", ("saved/*", "saved/variables/*"), (_evaluate("saved", preprocessing="raw:16"),), _LENGTH_KNOWN
        ),
        *pictures,
        FileKind(
            "TFRecord", ("records/*-of-*",), (records, _evaluate("mine.onnx", "--skip-bad", data="records")), _CHECKED
        ),
        FileKind("class names", ("records/*.txt",), (records,), _TEXT),
        FileKind(
            "options file",
            ("options.*",),
            tuple(_call("export", config=f"options.{suffix}") for suffix in ("yaml", "toml", "json")),
            frozenset(),
        ),
        FileKind("rules.json", ("rules.json",), (_call("explain", overrides="rules.json"),), _LENGTH_KNOWN),
        FileKind("placement.json", (f"{mine}/placement.json",), (placement, run, CALLS["report"]), _LENGTH_KNOWN),
        FileKind(
            "ranges.json",
            (f"{mine}/ranges.json",),
            (CALLS["diff-ranges"], _call("explain", ranges=f"{mine}/ranges.json"), CALLS["report"], CALLS["train"]),
            _LENGTH_KNOWN,
        ),
        FileKind(
            "settings.json",
            (f"{mine}/settings.json",),
            (*readers, CALLS["export"], CALLS["evaluate"]),
            _LENGTH_KNOWN,
        ),
        FileKind("data.json", (f"{mine}/data.json",), readers, _LENGTH_KNOWN),
        FileKind(
            "preprocessing.json",
            (f"{mine}/preprocessing.json",),
            (CALLS["evaluate"], CALLS["export"], run, CALLS["train"]),
            _LENGTH_KNOWN,
        ),
        FileKind("results.json", (f"{mine}/results.json",), (CALLS["report"],), _LENGTH_KNOWN),
        FileKind("diagnosis.json", (f"{mine}/*_diagnosis.json",), (CALLS["report"],), _LENGTH_KNOWN),
        FileKind(
            "other JSON of a run",
            tuple(f"{mine}/{name}.json" for name in ("overrides", "recipe", "bias_correction")),
            readers,
            frozenset(),
        ),
        FileKind("checkpoint", (f"{mine}/training*/*.*",), (CALLS["train"],), frozenset()),
        FileKind("cached baseline", ("cache/*/baselines/*",), (digits,), frozenset(), before=_use_cache),
        FileKind("cached ranges", ("cache/*/ranges/*",), (CALLS["quantize"],), frozenset(), before=_use_cache),
        FileKind("cached index", ("cache/*/record-indexes/*",), (records,), frozenset(), first=records),
        FileKind("archive", ("archives/*",), (CALLS["prepare-imagenet"],), frozenset()),
        FileKind(
            "shards begun",
            ("shards/*",),
            (_call("prepare-imagenet", output="shards", writes=("shards",)),),
            frozenset(),
        ),
    )


def _cases(kind: FileKind) -> list[tuple[str, Call, str]]:
    """Every pattern of files, read by every command, with every damage."""
    names = [*DAMAGES, *REPLACEMENTS]
    return [
        (pattern, call, name)
        for pattern in kind.files
        for call in kind.calls
        for name in (*names, *(_EDITS if pattern.endswith(".json") or kind.name == "cached ranges" else ()))
    ]


def _make(kind: FileKind, case: tuple[str, Call, str], choice: random.Random) -> Try:
    pattern, call, name = case
    seed = choice.random()

    def prepare(folder: Path) -> None:
        if kind.before is not None:
            kind.before(folder)
        own = random.Random(seed)  # noqa: S311
        path = own.choice(sorted(path for path in folder.glob(pattern) if path.is_file()))
        if name in REPLACEMENTS:
            REPLACEMENTS[name](path)
        else:
            path.write_bytes({**DAMAGES, **_EDITS}[name](path.read_bytes(), own))

    return Try(call, f"{pattern} {name}", prepare, kind.first, name in kind.detectable, compare=True)


def damage_kinds() -> tuple[Kind, ...]:
    """A kind of tries for each kind of file."""
    slow = {"run", "quantize", "train"}
    return tuple(
        enumerated(
            f"damaged {kind.name}",
            _cases(kind),
            partial(_make, kind),
            cheap=not any(call.command in slow for call in kind.calls) and kind.first is None,
        )
        for kind in file_kinds()
    )
