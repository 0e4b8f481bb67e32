"""Values as JSON: what was written is read back, and nothing else is."""

import json
import math
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from keras_qat.errors import UserError
from keras_qat.files import from_json_value, to_json, to_json_value


class Color(str, Enum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True)
class Point:
    x: float
    y: float = 0.0

    def __post_init__(self) -> None:
        if self.y < 0:
            raise UserError(f"`y` must not be negative. Received: y={self.y}. Choose another.")
        if self.x > 1e6:
            raise ValueError("too far")


@dataclass(frozen=True)
class Everything:
    name: str
    count: int
    flag: bool
    ratio: float
    folder: Path
    mode: Literal["fast", "slow"]
    level: Literal[1, 2]
    color: Color
    point: Point
    points: tuple[Point, ...]
    pair: tuple[float, str]
    by_name: Mapping[str, Point]
    schedule: str | tuple[tuple[float, float], ...]
    anything: Any
    missing: int | None = None
    place: Point | None = None
    target: Path | None = None
    colors: dict[str, tuple[Color, ...]] = field(default_factory=dict)


EVERYTHING = Everything(
    name="a",
    count=3,
    flag=True,
    ratio=0.25,
    folder=Path("runs/a"),
    mode="slow",
    level=2,
    color=Color.BLUE,
    point=Point(1.0, 2.0),
    points=(Point(3.0), Point(4.0)),
    pair=(1.5, "b"),
    by_name={"conv/relu": Point(5.0)},
    schedule=((1.0, 2.0), (3.0, 4.0)),
    anything={"a": [1, None]},
    place=Point(0.0),
    target=Path("x"),
    colors={"warm": (Color.RED,)},
)


def read_back(value: Any) -> Any:
    return json.loads(to_json(to_json_value(value)))


@pytest.mark.parametrize("schedule", [((1.0, 2.0), (3.0, 4.0)), "cosine", ()])
def test_a_round_trip(schedule: Any) -> None:
    everything = Everything(**{**EVERYTHING.__dict__, "schedule": schedule})
    assert from_json_value(Everything, read_back(everything)) == everything


def test_defaults_may_be_absent() -> None:
    written = read_back(EVERYTHING)
    for name in ("missing", "place", "target", "colors"):
        del written[name]
    found = from_json_value(Everything, written)
    assert (found.missing, found.place, found.target, found.colors) == (None, None, None, {})


def test_types_are_those_that_were_declared() -> None:
    assert isinstance(from_json_value(Point, {"x": 1}).x, float)
    assert isinstance(from_json_value(dict[str, Path], {"a": "b"})["a"], Path)
    assert from_json_value(tuple[Color, ...], ["red"]) == (Color.RED,)


@pytest.mark.parametrize("number", [math.inf, -math.inf])
def test_an_infinite_number_is_read_from_its_name(number: float) -> None:
    assert from_json_value(float, str(number)) == number
    assert from_json_value(Point, {"x": str(-abs(number))}) == Point(-math.inf)


WRONG: dict[str, tuple[dict[str, Any], str, str]] = {
    "a text for a count": ({"count": "3"}, "`count` must be an integer", "'3'"),
    "a fraction for a count": ({"count": 1.5}, "`count` must be an integer", "1.5"),
    "a whole float for a count": ({"count": 1.0}, "`count` must be an integer", "1.0"),
    "a truth for a count": ({"count": True}, "`count` must be an integer", "True"),
    "a truth for a number": ({"ratio": False}, "`ratio` must be a number", "False"),
    "a text for a number": ({"ratio": "0.25"}, "`ratio` must be a number", "'0.25'"),
    "another text for a number": ({"ratio": "nan"}, "`ratio` must be a number", "'nan'"),
    "a count for a truth": ({"flag": 1}, "`flag` must be true or false", "1"),
    "a number for a text": ({"name": 7}, "`name` must be a string", "7"),
    "null for a text": ({"name": None}, "`name` must be a string", "None"),
    "a number for a path": ({"folder": 3}, "`folder` must be a path", "3"),
    "a number for a path or null": ({"target": 3}, "`target` must be a path or null", "3"),
    "an unknown word": ({"mode": "idle"}, "`mode` must be 'fast' or 'slow'", "'idle'"),
    "a truth for a 1": ({"level": True}, "`level` must be 1 or 2", "True"),
    "a list for a word": ({"mode": ["fast"]}, "`mode` must be 'fast' or 'slow'", "['fast']"),
    "an unknown member": ({"color": "green"}, "`color` must be 'red' or 'blue'", "'green'"),
    "a list for an object": ({"point": [1, 2]}, "`point` must be an object", "[1, 2]"),
    "a number for an object or null": ({"place": 3}, "`place` must be an object or null", "3"),
    "a text for a list": ({"points": "ab"}, "`points` must be a list", "'ab'"),
    "an object for a list": ({"points": {"0": {}}}, "`points` must be a list", "{'0': {}}"),
    "a list for a mapping": ({"by_name": []}, "`by_name` must be an object", "[]"),
    "a field deep down": ({"points": [{"x": 1}, {"x": "2"}]}, "`points[1].x` must be a number", "'2'"),
    "a field in a mapping": (
        {"by_name": {"conv/relu": {"x": None}}},
        "`by_name['conv/relu'].x` must be a number",
        "None",
    ),
    "a field in a union": ({"place": {"x": "2"}}, "`place.x` must be a number", "'2'"),
    "none of a union": ({"schedule": 3}, "`schedule` must be a string or a list", "3"),
    "a member in a mapping of lists": ({"colors": {"warm": ["red", 3]}}, "`colors.warm[1]` must be 'red' or", "3"),
    "an absent field": ({"point": {"y": 1.0}}, "`point.x` is missing", "{'y': 1.0}"),
    "an unknown field": ({"point": {"x": 1.0, "z": 1, "a": 2}}, "`point` has unknown fields: 'a', 'z'", "{'a': 2, "),
    "a value that its class refuses": ({"point": {"x": 1e7}}, "`point` can't be read (ValueError: too far)", "{'x': "),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_named(case: str) -> None:
    change, reason, received = WRONG[case]
    with pytest.raises(UserError) as caught:
        from_json_value(Everything, {**read_back(EVERYTHING), **change}, problem="No run", remedy="Run again.")
    assert str(caught.value).startswith(f"No run: {reason}")
    assert f"Received: {received}" in str(caught.value)
    assert str(caught.value).endswith(" Run again.")


@pytest.mark.parametrize("length", [1, 3])
def test_a_tuple_has_its_length(length: int) -> None:
    with pytest.raises(UserError, match=r"`pair` .*Received: "):
        from_json_value(Everything, {**read_back(EVERYTHING), "pair": [1.5, "b", "c"][:length]})


@pytest.mark.parametrize("value", [[], "text", None, 3])
def test_what_is_no_object_at_all(value: Any) -> None:
    with pytest.raises(UserError, match="read: it must be an object"):
        from_json_value(Point, value)


def test_a_long_value_is_cut() -> None:
    with pytest.raises(UserError) as caught:
        from_json_value(int, "x" * 10_000)
    assert len(str(caught.value)) < 500


def test_what_a_class_says_to_the_user_passes() -> None:
    for kind, value in ((Point, {"x": 1, "y": -1}), (tuple[Point, ...], [{"x": 1, "y": -1}])):
        with pytest.raises(UserError, match=r"^`y` must not be negative\. Received: y=-1\.0\. Choose another\.$"):
            from_json_value(kind, value)


def test_a_hook_reads_what_is_spelled_in_another_way() -> None:
    def point(value: Any) -> Point:
        return Point(*map(float, value.split(",")))

    hooks = {Point: point}
    assert from_json_value(tuple[Point, ...], ["1,2", "3,4"], hooks=hooks) == (Point(1.0, 2.0), Point(3.0, 4.0))
    with pytest.raises(UserError, match=r"`\[1\]` can't be read \(ValueError: .*'x'\)\. Received: 'x'\."):
        from_json_value(tuple[Point, ...], ["1,2", "x"], hooks=hooks)


def test_a_hook_that_misses_a_key_is_no_missing_field() -> None:
    with pytest.raises(UserError, match=r"`a` can't be read \(KeyError: 'x'\)\. Received: {}\."):
        from_json_value(dict[str, Point], {"a": {}}, hooks={Point: lambda value: Point(value["x"])})


def test_numpy_becomes_plain() -> None:
    value = {"a": np.float32(0.5), "b": np.int64(3), "c": np.bool_(True), "d": np.arange(3), "e": np.float64(0.1)}
    plain = to_json_value(value)
    assert plain == {"a": 0.5, "b": 3, "c": True, "d": [0, 1, 2], "e": 0.1}
    assert [type(item) for item in plain.values()] == [float, int, bool, list, float]


def test_the_module_imports_no_framework() -> None:
    code = "import sys, keras_qat.files.values; print([n for n in ('keras', 'numpy', 'cattrs') if n in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603
    assert found.stdout.strip() == "[]"
