"""Options with random values, files of options with random content, and paths that lead nowhere good."""

import json
import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from faults.commands import CALLS, CHEAP, Call, OptionFacts, Value, options_of
from faults.tries import Kind, Try, enumerated, nothing, simple

_NUMBERS = (
    *(
        "-1",
        "0",
        "1",
        "2",
        "3",
        "7",
        "1.5",
        "-0.5",
        "1e-9",
        "1e9",
        "1e309",
        "nan",
        "inf",
        "-inf",
        "0x10",
        "1_000",
        "1,5",
    ),
    *("2147483647", "2147483648", "9223372036854775808", "1" + "0" * 30, "٣", "½"),
)
_TEXTS = (
    *(
        "",
        " ",
        ".",
        "-",
        "--",
        "none",
        "None",
        "null",
        "true",
        "all",
        "auto",
        "é\u0301",
        "名前",
        "\u202eabc",
        "\x1b[31mred",
    ),
    *(
        "a\nb",
        "a\tb",
        "\x07",
        "\x7f",
        "\udcff",
        "%s%n",
        "{0}",
        "[bold]",
        "[/]",
        "$(id)",
        "';--",
        "*",
        "a,b",
        "a@b",
        "1.0@0.5",
    ),
    *("x" * 300, "x" * 70_000, "unit:16", "unit:-1", "unit:99999999", "raw:16:1", "conv*", "resnet50 ", "RESNET"),
)
_NOT_WHOLE = frozenset({"1.5", "-0.5", "nan", "inf", "-inf", "1e309", "1,5", "½"})
_NOT_A_NUMBER = frozenset({"nan", "1,5", "½"})
_VALID: Mapping[str, tuple[str, ...]] = {
    "--target": ("onnxruntime", "openvino", "tensorrt"),
    "--calibration-method": ("minmax", "ema", "mse", "percentile"),
    "--weight-method": ("absmax", "mse"),
    "--optimizer": ("adam", "adamw", "sgd"),
    "--batch-norm": ("train", "freeze"),
    "--engine": ("onnxruntime", "openvino", "keras", "tensorrt"),
    "--preprocessing": ("unit:16", "tf:16", "caffe:16:20", "raw:32"),
    "--opset": ("13", "17", "19", "21"),
    "--format": ("onnx", "saved-model", "markdown", "mermaid", "dot", "table"),
}
_HUNGRY = frozenset({"--workers", "--threads", "--epochs", "--runs", "--warm-up", "--shards", "--steps-per-epoch"})
"""Options of which a huge value is right, and takes long."""


def _value(option: OptionFacts, choice: random.Random) -> tuple[Value, bool]:
    """A value of an option, and whether it must be refused."""
    if option.flag:
        return None, False
    if option.whole or option.number:
        numbers = [text for text in _NUMBERS if option.name not in _HUNGRY or len(text) < 3 or text in _NOT_WHOLE]  # noqa: PLR2004
        value = choice.choice(numbers + list(choice.sample(_TEXTS, 3)))
        if option.name in _HUNGRY and value in {"inf", "1e309"}:
            value = "nan"
        return value, value in (_NOT_WHOLE if option.whole else _NOT_A_NUMBER)
    if option.name in _VALID and choice.random() < 0.3:  # noqa: PLR2004
        return choice.choice(_VALID[option.name]), False
    value = choice.choice(_TEXTS)
    return value, option.choice and value not in _VALID.get(option.name, ()) and value not in {"none", "auto"}


def _random_option(commands: tuple[str, ...], choice: random.Random) -> Try:
    call = CALLS[choice.choice(commands)]
    # A random path that is written to is tried by the kinds of wrong paths.
    options = [option for option in options_of(call.command) if not option.output and option.name != "--config"]
    chosen = choice.sample(options, choice.choice((1, 1, 2)))
    changes, must_fail, repeated = {}, False, []
    for option in chosen:
        value, refused = _value(option, choice)
        changes[option.name], must_fail = value, must_fail or refused
        if option.name.startswith("-") and choice.random() < 0.1:  # noqa: PLR2004
            repeated += [option.name, *([] if value is None else [str(value)])]
    note = ", ".join(f"{name} {str(value)[:40]!r}" for name, value in changes.items())
    return Try(call.changed(changes, *repeated), note, must_fail=must_fail)


_DOCUMENTS = (
    "",
    "\x00",
    "\ufeffseed: 3",
    "- a\n- b\n",
    "seed: !!python/object/apply:os.system ['touch pwned']\n",
    "seed: !!binary aaaa\n",
    "seed: !unknown 3\n",
    "a: &a [1, *a]\n",
    "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b]\nseed: *c\n",
    "<<: 3\n",
    "? [a]\n: 3\n",
    "1: 2\n",
    "seed: 2001-01-01\n",
    "seed: 1\nseed: 2\n",
    "target: {a: {b: c}}\n",
    "export: 3\n",
    "export: {export: {seed: 3}}\n",
    "%YAML 9.9\n---\nseed: 3\n",
    "seed: 3\n---\nseed: 4\n",
    "\tseed: 3\n",
    "seed = 3\nseed = 4\n",
    "[export]\nseed = 3\n[export]\nseed = 4\n",
    "seed = 1979-05-27T07:32:00Z\n",
    "[[export]]\nseed = 3\n",
    '{"seed": 1e400}',
    '{"seed": NaN}',
    '{"config": "options.json"}',
    "[" * 100_000,
    '{"a":' * 50_000 + "1" + "}" * 50_000,
    '{"seed": ' + "9" * 5000 + "}",
)


def _random_config(choice: random.Random) -> Try:
    call = CALLS[choice.choice(CHEAP)]
    suffix = choice.choice((".yaml", ".yml", ".toml", ".json", ".txt", ""))
    if choice.random() < 0.4:  # noqa: PLR2004
        text = choice.choice(_DOCUMENTS)
    else:
        options = [option for option in options_of(call.command) if not option.output]
        odd: list[Any] = [None, True, -1, 0, 1.5, 10**30, "", "x", [], {}, [1, "a"], {"a": 1}, [[[]]], float("nan")]
        values = {choice.choice(options).name.lstrip("-"): choice.choice(odd) for _ in range(choice.randrange(1, 4))}
        # JSON is YAML, too.
        text = json.dumps({call.command: values} if choice.random() < 0.3 else values)  # noqa: PLR2004
        if suffix == ".toml":
            text = "".join(f"{json.dumps(key)} = {json.dumps(value)}\n" for key, value in values.items())
    encoding = choice.choice(("utf-8", "utf-8", "utf-16", "latin-1"))

    def prepare(folder: Path) -> None:
        (folder / f"made{suffix}").write_bytes(text.encode(encoding, errors="replace"))

    return Try(call.changed({"--config": f"made{suffix}"}), f"{encoding}: {text[:80]!r}", prepare)


def _suffix(option: OptionFacts, call: Call) -> str:
    value = call.given.get(option.name)
    if isinstance(value, str):
        return Path(value).suffix
    natural = {"--overrides": ".json", "--ranges": ".json", "--placement": ".json", "--image": ".png", "--plot": ".png"}
    natural |= {"--log-file": ".log", "--config": ".yaml", "--compare": ".onnx", "--model": ".keras"}
    markdown = call.command == "explain" or "--format" in call.given
    return natural.get(option.name, ".md" if markdown else ".json" if option.output else "")


_WRONG: Mapping[str, Callable[[str], str]] = {
    "nowhere": lambda suffix: f"nowhere{suffix}",
    "folder": lambda _: "qat_photos",
    "folder that is empty": lambda _: "empty",
    "current folder": lambda _: ".",
    "below a file": lambda suffix: f"notes.txt/a{suffix}",
    "FIFO": lambda suffix: f"special/fifo{suffix}",
    "zero": lambda suffix: f"special/zero{suffix}",
    "full": lambda suffix: f"special/full{suffix}",
    "loop": lambda suffix: f"special/loop{suffix}",
    "broken link": lambda suffix: f"special/nowhere{suffix}",
    "link": lambda suffix: f"special/link{suffix}",
    "too long": lambda suffix: "x" * 300 + suffix,
    "deep": lambda suffix: "x/" * 2500 + suffix,
    "not UTF-8": lambda suffix: f"\udcff\udcfe{suffix}",
    "control characters": lambda suffix: f"a\x1b[31m\nb{suffix}",
    "other file": lambda _: "notes.txt",
    "read-only": lambda suffix: f"locked/a{suffix}",
    "read-only, deeper": lambda suffix: f"locked/b/c{suffix}",
    "process": lambda suffix: f"/proc/self/{'mem' if not suffix else 'none' + suffix}",
}

_READ = frozenset({"FIFO", "zero", "full", "loop", "broken link", "nowhere", "too long", "deep", "below a file"})


_OWN_INPUT = "own input"

_WITHIN = {
    "runs/mine": "runs/mine/ranges.json",
    "classes": "classes/blue/0.png",
    "qat_photos": "qat_photos/0.png",
    "archives": "archives/ILSVRC2012_img_val.tar",
}
"""A file of each folder that a call reads."""


def _path_cases(commands: Sequence[str]) -> list[tuple[str, OptionFacts, str]]:
    """Every option that names a path, with every wrong path; outputs also with each input of the same call."""
    found = []
    for command in commands:
        call = CALLS[command]
        for option in (option for option in options_of(command) if option.path):
            found += [(command, option, wrong) for wrong in _WRONG]
            if option.output:
                inputs = _inputs(call)
                found += [(command, option, f"{_OWN_INPUT} {name}") for name in inputs]
                within = [name for name in inputs if call.given[name] in _WITHIN]
                found += [(command, option, f"{_OWN_INPUT}, within {name}") for name in within]
    return found


def _inputs(call: Call) -> list[str]:
    """The options whose values are files that the call reads."""
    reading = {option.name for option in options_of(call.command) if option.path and not option.output}
    return [name for name, value in call.given.items() if name in reading and isinstance(value, str)]


def _wrong_path(mountable: Callable[[], bool], case: tuple[str, OptionFacts, str], choice: random.Random) -> Try:
    command, option, wrong = case
    call = CALLS[command]
    own = wrong.startswith(_OWN_INPUT)
    value = str(call.given[wrong.split()[-1]]) if own else _WRONG[wrong](_suffix(option, call))
    value = _WITHIN[value] if ", within " in wrong else value
    drop = {"--image": ("--data", "--seed"), "--run-folder": ("--output",)}.get(option.name, ())
    given = {name: known for name, known in call.given.items() if name not in drop}
    json_too: dict[str, Value] = {"--json": None} if option.output and choice.random() < 0.5 else {}  # noqa: PLR2004
    call = Call(command, given, call.writes, call.keeps).changed({**json_too, option.name: value})
    read_only = wrong.startswith("read-only") and mountable()

    def prepare(folder: Path) -> None:
        (folder / "empty").mkdir()
        (folder / "locked").mkdir()

    return Try(
        call,
        f"{option.name}: {wrong}",
        prepare,
        # An input that can't be read must be refused.
        must_fail=wrong in _READ and not option.output,
        # A named file that is no input may be replaced.
        allowed=("notes.txt",) if wrong == "other file" and option.output else (),
        fault={"kind": "read-only", "at": "locked"} if read_only else None,
    )


_USERS_FOLDERS = (".", "qat_photos", "classes", "..", "runs", "runs/mine", "saved", "records", "archives", "pictures")


def _users_run_folder(choice: random.Random) -> Try:
    """A run folder that holds what isn't the tool's: nothing of it may be changed."""
    name = choice.choice(("run", "quantize", "prepare-imagenet"))
    call = CALLS[name]
    folder = choice.choice(_USERS_FOLDERS if name == "prepare-imagenet" else _USERS_FOLDERS[:4] * 2 + _USERS_FOLDERS)
    option = "--output" if name == "prepare-imagenet" else "--run-folder"
    data = choice.choice(("qat_photos", "classes", "./qat_photos"))
    changes = {option: folder, **({} if name == "prepare-imagenet" else {"--data": data})}
    # A run of the tool itself may be replaced by the same run; this one has another path as its data.
    allowed = ("runs/mine",) if folder == "runs/mine" and data.endswith("qat_photos") else ()
    changed = call.changed(changes)
    return Try(Call(name, changed.given), f"{option} {folder}", nothing, allowed=allowed)


def option_kinds(mountable: Callable[[], bool]) -> tuple[Kind, ...]:
    """Kinds of tries with wrong options and paths."""
    slow = tuple(name for name in CALLS if name not in CHEAP)
    return (
        simple("random options", partial(_random_option, CHEAP), weight=6),
        simple("random options of runs", partial(_random_option, slow), cheap=False, weight=2),
        simple("random options files", _random_config, weight=4),
        enumerated("wrong paths", _path_cases(CHEAP), partial(_wrong_path, mountable), weight=8),
        enumerated("wrong paths of runs", _path_cases(slow), partial(_wrong_path, mountable), cheap=False, weight=3),
        simple("folders of the user as output", _users_run_folder, cheap=False, weight=2),
    )
