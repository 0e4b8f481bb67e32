"""Files of JSON that were edited by hand or damaged: each change is read as it stands, or refused in one message."""

import copy
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from keras_qat import Overrides, Ranges, Recipe, Rule, apply_placement, explain, plan, quantize, trace
from keras_qat.data import Preprocessing
from keras_qat.errors import UserError
from keras_qat.evaluation import Latency, diagnose, diagnosis_record
from keras_qat.export import export_onnx
from keras_qat.files import to_json, to_json_value
from keras_qat.machine import read_environment
from keras_qat.models import ModelFacts, read_facts_file
from keras_qat.placement import load_placement, placement_dict
from keras_qat.report import Record, Row, load_diagnosis, load_record, markdown, verdict
from keras_qat.run import Settings, seed_for
from keras_qat.verify import verify_file

WRONG: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 3, 10**30, 0.5, -0.5, float("nan"), float("inf"), 1e308, 5e-324),
    *("", "x", "1", "fp32", "conv", "nan", [], [1], ["x"], [[]], {}, {"x": 1}, {"": None}),
)


TRIES = 80
"""Of each kind of file. With 1000 of each, none was neither read nor refused."""


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path to each part of a JSON value, its own first."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in items:
        yield from places(part, (*path, key))


def changed(value: Any, random_: random.Random) -> Any:
    """A copy with one part deleted, replaced, doubled, renamed or added."""
    value = copy.deepcopy(value)
    path = random_.choice(list(places(value)))
    if not path:
        return random_.choice(WRONG)
    *steps, last = path
    owner = value
    for step in steps:
        owner = owner[step]
    kind = random_.randrange(6)
    if kind == 0:
        del owner[last]
    elif kind == 1 and isinstance(owner, dict):
        owner[f"{last}_"] = owner.pop(last)
    elif kind == 2 and isinstance(owner, list):
        owner.append(copy.deepcopy(owner[last]))
    elif kind == 3 and isinstance(owner, dict):
        owner["added"] = random_.choice(WRONG)
    else:
        owner[last] = random_.choice(WRONG)
    return value


@dataclass(frozen=True)
class World:
    """A quantized network and its files."""

    model: keras.Model
    quantized: Any
    onnx: Path


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    x = inputs = keras.Input((8, 8, 3), name="image")
    x = keras.layers.Conv2D(4, 3, name="conv")(x)
    x = keras.layers.MaxPooling2D(name="pool")(keras.layers.ReLU(name="relu")(x))
    x = keras.layers.GlobalAveragePooling2D(name="average")(x)
    model = keras.Model(inputs, keras.layers.Dense(3, "softmax", name="head")(x), name="small")
    images = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype("float32")
    quantized = quantize(model, images, "onnxruntime")
    path = export_onnx(quantized.model, tmp_path_factory.mktemp("edited") / "int8.onnx", target="onnxruntime")
    return World(model, quantized, path)


def _record(_: World) -> Any:
    latency = Latency(1.0, 1.1, 50, "CPU")
    row = Row("Baseline", 0.9, 1.0, latency, 0.9, 1.0, latency, 1.0, 1.0, 40.0, 1.0, (), 40_123)
    rows = (row, replace(row, name="PTQ", size_bytes=12_345))
    rest = (360, "ONNX Runtime", rows, None, (), {"model": "small"}, read_environment(), {"load": 1.0})
    return Record("small", "digits", "onnxruntime", *rest).to_dict()


def _results(_: World, path: Path) -> None:
    record = load_record(path)
    markdown(record)
    verdict(record)


def _settings(_: World, path: Path) -> None:
    Settings.from_dict(json.loads(path.read_text()))
    seed_for(path.parent / "qat.onnx", None)


def _placement(world: World, path: Path) -> None:
    placement = load_placement(path)
    for form in ("table", "dot", "mermaid"):
        explain(placement, format=form, ranges=world.quantized.ranges)  # type: ignore[arg-type]
    verify_file(world.onnx, placement)
    apply_placement(world.model, placement, world.quantized.ranges)


def _ranges(world: World, path: Path) -> None:
    ranges = Ranges.load(path)
    str(ranges.diff(world.quantized.ranges))
    explain(world.quantized.placement, ranges=ranges)
    apply_placement(world.model, world.quantized.placement, ranges)


def _overrides(world: World, path: Path) -> None:
    plan(trace(world.model).graph, "onnxruntime", overrides=Overrides.load(path))


RULES = Overrides(
    (Rule("conv", inputs=False), Rule(("head", "relu"), weights="target", weight_bits=None, inputs=(0,), optional=True))
)

READERS: dict[str, tuple[Callable[[World], Any], Callable[[World, Path], Any]]] = {
    "placement.json": (lambda world: placement_dict(world.quantized.placement), _placement),
    "ranges.json": (
        lambda world: {
            "format": "keras-qat ranges",
            "version": 1,
            "tensors": to_json_value(world.quantized.ranges.tensors),
        },
        _ranges,
    ),
    "overrides.json": (lambda _: json.loads(RULES.to_json()), _overrides),
    "settings.json": (lambda _: Settings().to_dict(), _settings),
    "results.json": (_record, _results),
    "recipe.json": (
        lambda _: json.loads(to_json(Recipe(schedule="1.0@1,0.1@2").to_dict())),
        lambda _, path: Recipe.from_dict(json.loads(path.read_text())),
    ),
    "preprocessing.json": (
        lambda _: ModelFacts(Preprocessing("caffe", 8, 9), embedded=False, class_names=("a", "b", "c")).to_dict(),
        lambda _, path: read_facts_file(path.parent),
    ),
    "ptq_diagnosis.json": (
        lambda world: diagnosis_record(diagnose(world.model, world.quantized.model, [np.ones((2, 8, 8, 3), "f")])),
        lambda _, path: load_diagnosis(path),
    ),
}


@pytest.mark.parametrize("name", READERS)
def test_every_change_is_read_or_refused(world: World, tmp_path: Path, name: str) -> None:
    made, use = READERS[name]
    content, path = json.loads(json.dumps(made(world))), tmp_path / name
    path.write_text(json.dumps(content))
    use(world, path)
    generator, refused = random.Random(0), 0  # noqa: S311
    for _ in range(TRIES):
        edited = changed(content, generator)
        path.write_text(json.dumps(edited))
        try:
            use(world, path)
        except UserError as error:
            refused += 1
            text = str(error)
            if "Received: " not in text or len(text) > 3000:
                pytest.fail(f"{name}: {text[:500]}")
    assert refused > TRIES / 4
