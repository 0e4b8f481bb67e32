"""A cheap call of every command, its options by introspection, and what a call may write."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

Value = str | Sequence[str] | None
"""An option's value, values, or `None` for a flag."""


@dataclass(frozen=True)
class Call:
    """One command line.

    Args:
        command: the name of the command.
        given: {option: value}; the names of positional arguments have no dashes.
        writes: paths in the user's folder that the command writes.
        keeps: files below those that it must not change.
        more: arguments that come last, as they are.
    """

    command: str
    given: Mapping[str, Value] = field(default_factory=dict)
    writes: tuple[str, ...] = ()
    keeps: tuple[str, ...] = ()
    more: tuple[str, ...] = ()

    @property
    def arguments(self) -> list[str]:
        """The command line without the program's name."""
        found = [self.command]
        for name, value in self.given.items():
            values = () if value is None else (value,) if isinstance(value, str) else tuple(value)
            found += [*([name] if name.startswith("-") else []), *values]
        return [*found, *self.more]

    def changed(self, options: Mapping[str, Value], *more: str) -> "Call":
        """The call with other values for some options."""
        return replace(self, given={**self.given, **options}, more=more)


_SMALL = {"--calibration-images": "8", "--calibration-batch-size": "4"}
_FLOAT_AND_PTQ = ("runs/mine/baseline.keras", "runs/mine/ptq.keras")
_NEW = {"--data": "qat_photos", "--run-folder": "out"}

CALLS: Mapping[str, Call] = {
    "run": Call(
        "run",
        {
            "--model": "baseline.keras",
            **_NEW,
            **_SMALL,
            "--epochs": "1",
            "--batch-size": "4",
            "--learning-rate": "1e-5",
            "--skip-saved-model": None,
        },
        ("out",),
    ),
    "quantize": Call("quantize", {"MODEL": "baseline.keras", **_NEW, **_SMALL}, ("out",)),
    "train": Call("train", {"RUN": "runs/mine", "--epochs": "1", "--batch-size": "4"}, ("runs/mine",), _FLOAT_AND_PTQ),
    "export": Call("export", {"MODEL": "runs/mine/ptq.keras", "--output": "out/made.onnx"}, ("out",)),
    "build-engine": Call(
        "build-engine", {"MODEL": "mine.onnx", "--engine": "openvino", "--output": "out/made.xml"}, ("out",)
    ),
    "verify": Call("verify", {"PATH": "runs/mine", "--json": None}),
    "evaluate": Call(
        "evaluate",
        {"FILE": "runs/mine/ptq.onnx", "--data": "classes", "--seed": "0", "--json": None},
    ),
    "benchmark": Call("benchmark", {"FILES": "mine.onnx", "--runs": "1", "--warm-up": "0", "--batch-sizes": "1"}),
    "diagnose": Call("diagnose", {"RUN": "runs/mine", "--images": "4", "--json": None}),
    "report": Call("report", {"RUNS": "runs/mine", "--output": "out/report.html"}, ("out",)),
    "explain": Call("explain", {"--model": "baseline.keras"}),
    "diff-ranges": Call(
        "diff-ranges", {"BEFORE": "runs/mine/ranges.json", "AFTER": "runs/mine/ranges.json", "--json": None}
    ),
    "doctor": Call("doctor", {"FILES": "mine.onnx", "--json": None}),
    "prepare-imagenet": Call(
        "prepare-imagenet",
        {"--archives": "archives", "--output": "out", "--shards": ("2", "1"), "--workers": "1", "--json": None},
        ("out",),
    ),
}
"""{command: a call that succeeds in the user's folder within seconds}."""

CHEAP = tuple(name for name in CALLS if name not in {"run", "quantize", "train"})
"""Commands that take well under a second."""


@dataclass(frozen=True)
class OptionFacts:
    """An option of a command.

    Args:
        name: as it is given, such as `--seed`, or `MODEL`.
        kind: its declared type as text, such as `int | None`.
    """

    name: str
    kind: str

    @property
    def whole(self) -> bool:
        """Whether its values are whole numbers."""
        return "int" in self.kind

    @property
    def number(self) -> bool:
        """Whether its values are numbers."""
        return "float" in self.kind

    @property
    def flag(self) -> bool:
        """Whether it has no value."""
        return "bool" in self.kind

    @property
    def choice(self) -> bool:
        """Whether its type names all values."""
        return "Literal" in self.kind

    @property
    def path(self) -> bool:
        """Whether its value names a file or folder."""
        return "Path" in self.kind or self.name in {"--data", "--weights", "--model"}

    @property
    def output(self) -> bool:
        """Whether the command writes there."""
        return self.name in {"--output", "--plot", "--log-file", "--run-folder"}


@cache
def options_of(command: str) -> tuple[OptionFacts, ...]:
    """The options of a command, positional ones first, as cyclopts has them."""
    from keras_qat.cli.program import app

    arguments: Any = app[command].assemble_argument_collection()
    found = [OptionFacts(argument.names[0], str(argument.hint)) for argument in arguments if argument.names[0] != "*"]
    return tuple(sorted(found, key=lambda option: option.name.startswith("-")))
