"""Numbers among the options: each is checked by its declared type, wherever it is declared."""

import math
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import keras
import numpy as np
import pytest

from keras_qat import Ranges, Recipe, export_onnx, plan, quantize, trace
from keras_qat.calibration import CalibrationOptions, read_batches
from keras_qat.data import ImageSet, Preprocessing
from keras_qat.errors import UserError, require_seed
from keras_qat.evaluation import EvaluationSettings, benchmark, predict
from keras_qat.export import ExportOptions, ExportSettings
from keras_qat.run import Settings, VerificationSettings
from keras_qat.runtimes import BatchRange, KerasRuntime, OnnxRuntime
from keras_qat.training import Distillation, find_devices

MAKERS: dict[type, Callable[..., Any]] = {
    CalibrationOptions: CalibrationOptions,
    Recipe: Recipe,
    Distillation: Distillation,
    ExportOptions: ExportOptions,
    Settings: Settings,
    EvaluationSettings: lambda **options: EvaluationSettings(Path("qat.onnx"), "digits", **options),
    VerificationSettings: lambda **options: VerificationSettings(Path("qat.onnx"), **options),
    ExportSettings: lambda **options: ExportSettings(Path("qat.keras"), **options),
    BatchRange: BatchRange,
    Preprocessing: lambda **options: Preprocessing(**{"mode": "unit", "size": 8, "resize": 8, **options}),
}
"""Every frozen class of options that has numbers, and how to make one with some options changed."""


def named(kind: type) -> list[tuple[type, str]]:
    return [
        (owner, field.name)
        for owner in MAKERS
        for field in fields(owner)
        if kind in (get_args(field.type) or (field.type,))
    ]


def test_the_options_are_found() -> None:
    assert len(named(int)) >= 24
    assert (Recipe, "steps_per_epoch") in named(int)
    assert (Recipe, "clip_norm") in named(float)


@pytest.mark.parametrize("value", [1.5, 2.0, True, "3", math.nan, math.inf, np.float32(1), np.True_, [1], {}, 1j])
def test_whole_numbers_are_whole(value: Any) -> None:
    for owner, name in named(int):
        with pytest.raises(UserError, match=rf"`{name}` must be a whole number.* Received: "):
            MAKERS[owner](**{name: value})


@pytest.mark.parametrize("value", [True, "3", [1.0], {}, 1j, np.True_])
def test_numbers_are_numbers(value: Any) -> None:
    for owner, name in named(float):
        with pytest.raises(UserError, match=f"`{name}` must be a number. Received: "):
            MAKERS[owner](**{name: value})


def test_numbers_of_numpy_become_plain_ones() -> None:
    recipe = Recipe(epochs=np.int64(3), learning_rate=np.float32(0.5), clip_norm=np.float64(1))  # type: ignore[arg-type]
    assert recipe == Recipe(epochs=3, learning_rate=0.5, clip_norm=1.0)
    assert (type(recipe.epochs), type(recipe.learning_rate)) == (int, float)
    assert Settings.from_dict(Settings.of(epochs=np.int64(3)).to_dict()).recipe.epochs == 3


@pytest.mark.parametrize("value", [2**31, 10**30, 10**5000], ids=["2^31", "10^30", "10^5000"])
def test_absurd_numbers_are_refused(value: int) -> None:
    for owner, name in named(int):
        with pytest.raises(UserError, match=rf"`{name}` must be .*Received: ") as raised:
            MAKERS[owner](**{name: value})
        assert len(str(raised.value)) < 500


@pytest.fixture(scope="module")
def model() -> keras.Model:
    x = keras.Input((8, 8, 3), name="image")
    return keras.Model(x, keras.layers.Conv2D(4, 3, name="conv")(x))


CALLS: dict[str, Callable[[keras.Model, Any], Any]] = {
    "quantize(images=)": lambda model, n: quantize(model, np.zeros((4, 8, 8, 3), "float32"), images=n),
    "read_batches(batch_size=)": lambda model, n: read_batches(
        np.zeros((4, 8, 8, 3)), model, batch_size=n, description="reading"
    ),
    "plan(weight_bits=)": lambda model, n: plan(trace(model).graph, "tensorrt", weight_bits=n),
    "export_onnx(opset=)": lambda model, n: export_onnx(model, "never.onnx", opset=n),
    "benchmark(batch_sizes=)": lambda model, n: benchmark({"keras": KerasRuntime(model)}, batch_sizes=[n]),
    "benchmark(runs=)": lambda model, n: benchmark({"keras": KerasRuntime(model)}, runs=n),
    "benchmark(warm_up=)": lambda model, n: benchmark({"keras": KerasRuntime(model)}, warm_up=n),
    "predict(best=)": lambda model, n: predict(KerasRuntime(model), [], description="predicting", best=n),
    "OnnxRuntime(threads=)": lambda _, n: OnnxRuntime("never.onnx", threads=n),
    "find_devices(count)": lambda _, n: find_devices(n),
    "require_seed(seed)": lambda _, n: require_seed(n),
    "ImageSet.batches(batch_size)": lambda _, n: images().batches(n),
    "ImageSet.take(n)": lambda _, n: images().take(n, seed=0),
    "RangesDiff.describe(worst)": lambda _, n: Ranges().diff(Ranges()).describe(n),
}


def images() -> ImageSet:
    return ImageSet.from_arrays("black", np.zeros((4, 8, 8, 3), "uint8"), [0, 1, 0, 1], Preprocessing("tf", 8, 8))


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("value", [1.5, True, "3", math.nan, -1])
def test_functions_check_theirs(model: keras.Model, call: str, value: Any) -> None:
    with pytest.raises(UserError, match=r"must be .*Received: "):
        CALLS[call](model, value)
