"""Models that look like any other and whose files would be wrong are refused by every entry, by name."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from keras_qat import Recipe, calibrate, export_onnx, fine_tune, plan, quantize, trace
from keras_qat.cli.program import app, run_program
from keras_qat.data import Preprocessing
from keras_qat.errors import UnsupportedModelError, UserError, WeightsError
from keras_qat.evaluation import open_model
from keras_qat.export import export_saved_model
from keras_qat.graph import require_finite
from keras_qat.types import Placement
from keras_qat.verify import verify_file

IMAGES = np.random.default_rng(0).normal(size=(8, 8, 8, 3)).astype("float32")


def network(name: str = "small") -> keras.Model:
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((8, 8, 3), name="image")
    x = keras.layers.Conv2D(4, 3, activation="relu", name="conv")(x)
    x = keras.Sequential([keras.Input((6, 6, 4)), keras.layers.Conv2D(4, 3, name="inner")], name="block")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, keras.layers.Dense(3, "softmax", name="head")(x), name=name)


ENTRIES: dict[str, Callable[[keras.Model, Placement, Path], Any]] = {
    "quantize": lambda model, _, __: quantize(model, IMAGES),
    "plan": lambda model, _, __: plan(trace(model).graph, "onnxruntime"),
    "calibrate": lambda model, placement, _: calibrate(model, placement, IMAGES),
    "export_onnx": lambda model, _, folder: export_onnx(model, folder / "model.onnx"),
    "export_saved_model": lambda model, _, folder: export_saved_model(model, folder / "saved"),
    "fine_tune": lambda model, _, __: fine_tune(model, never, [], Recipe(), teacher=network(), progress=False),
    "fine_tune(teacher=)": lambda model, _, __: fine_tune(
        network(), never, [], Recipe(), teacher=model, progress=False
    ),
}


def never(_: int) -> Any:
    pytest.fail("the images were read")


@pytest.fixture(scope="module")
def placement() -> Placement:
    return plan(trace(network()).graph, "onnxruntime")


@pytest.fixture(scope="module", params=["int8", "int4", "float8"])
def quantized_by_keras(request: pytest.FixtureRequest) -> keras.Model:
    model = network()
    with pytest.warns(UserWarning, match="."):  # Convolutions can't be quantized by Keras, it says.
        model.quantize(request.param)
    return model


@pytest.mark.parametrize("entry", ENTRIES)
def test_models_that_keras_quantized_are_refused(
    quantized_by_keras: keras.Model, placement: Placement, tmp_path: Path, entry: str
) -> None:
    with pytest.raises(UnsupportedModelError, match=r"Received: 'small', with the quantized layers 'head'\. Load the"):
        ENTRIES[entry](quantized_by_keras, placement, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "command",
    [
        ("quantize", "{file}", "--data", "digits", "--preprocessing", "unit:8", "--output", "{folder}"),
        ("export", "{file}"),
        ("explain", "--model", "{file}"),
    ],
)
def test_commands_refuse_them_as_well(
    quantized_by_keras: keras.Model, tmp_path: Path, command: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "eight.keras"
    quantized_by_keras.save(file)
    assert run_program([part.format(file=file, folder=tmp_path / "runs") for part in command], app) == 2
    assert "with the quantized layers 'head'" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused(
    placement: Placement, tmp_path: Path, entry: str, value: float
) -> None:
    model = network()
    kernel = model.get_layer("block").get_layer("inner").kernel
    kernel.assign(np.where(np.arange(4) == 1, value, kernel))
    with pytest.raises(WeightsError, match=re.escape(f"36 of 144 numbers in {kernel.path} of small are not finite")):
        ENTRIES[entry](model, placement, tmp_path)


def test_a_sum_that_overflows_is_no_weight_that_is_not_finite() -> None:
    model = network()
    model.get_layer("head").bias.assign([3e38, 3e38, -3e38])
    require_finite(model)


def test_a_model_that_keras_quantized_can_be_evaluated(quantized_by_keras: keras.Model, tmp_path: Path) -> None:
    quantized_by_keras.save(tmp_path / "eight.keras")
    assert open_model(tmp_path / "eight.keras", preprocessing=Preprocessing.parse("unit:8")).num_classes == 3


def test_a_model_quantized_for_one_engine_is_not_exported_for_another(tmp_path: Path) -> None:
    quantized = quantize(network(), IMAGES, "tensorrt")
    quantized.model.save(tmp_path / "int8.keras")
    loaded = keras.saving.load_model(tmp_path / "int8.keras")
    for model in (quantized.model, loaded):
        with pytest.raises(
            UserError, match=r"target='onnxruntime', and the model 'small' with the Q/DQ pairs of tenso"
        ):
            export_onnx(model, tmp_path / "wrong.onnx", target="onnxruntime")
    assert not (tmp_path / "wrong.onnx").exists()
    path = export_onnx(loaded, tmp_path / "int8.onnx", target="tensorrt")
    with pytest.raises(UserError, match=r"a placement for openvino, and '.*int8.onnx', written for tensorrt"):
        verify_file(path, plan(trace(network()).graph, "openvino"))
    assert verify_file(path, quantized.placement).ok
