"""`keras-qat export`: the file compared with the model in an engine of the test, the output, and the mistakes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import onnxruntime
import pytest

from keras_qat import apply_placement, calibrate, export_keras, export_onnx, plan, trace
from keras_qat.cli.program import app, run_program
from keras_qat.data import Preprocessing
from keras_qat.export import checked as export
from keras_qat.layers import FakeQuantize
from keras_qat.models import ModelFacts, read_model_facts

layers = keras.layers
Program = Callable[..., tuple[int, str, str]]

FACTS = ModelFacts(Preprocessing("caffe", 16, 20), embedded=False, class_names=("cat", "dog", "bird"))


def network(size: int | None = 16) -> keras.Model:
    x = image = keras.Input((size, size, 3), name="image")
    x = layers.Conv2D(8, 3, padding="same", name="conv")(x)
    x = layers.ReLU(name="relu")(layers.BatchNormalization(name="bn")(x))
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(image, layers.Dense(3, "softmax", name="predictions")(x), name="small")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of float.keras, int8.keras, and the preprocessing.json of both."""
    made = tmp_path_factory.mktemp("models")
    keras.utils.set_random_seed(0)
    model = network()
    kernel = model.get_layer("predictions").kernel
    kernel.assign(kernel * 0.01)  # Large pixels would make all scores 0 or 1, which would hide errors.
    placement = plan(trace(model).graph, "tensorrt")
    pixels = np.random.default_rng(0).uniform(-128, 128, (16, 16, 16, 3)).astype("float32")
    export_keras(model, made / "float.keras")
    export_keras(apply_placement(model, placement, calibrate(model, placement, [pixels])), made / "int8.keras")
    (made / "preprocessing.json").write_text(json.dumps(FACTS.to_dict()))
    return made


@pytest.fixture
def program(capfd: pytest.CaptureFixture[str]) -> Program:
    """Run `keras-qat export …`: (exit code, standard output, standard error)."""

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        code = run_program(["export", *map(str, arguments)], app)
        captured = capfd.readouterr()
        return code, captured.out, " ".join(captured.err.split())

    return call


def scores(path: Path, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (values,) = session.run(None, {session.get_inputs()[0].name: images})
    return np.asarray(values)


def test_a_float_model(program: Program, folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "made" / "float.onnx"
    code, out, err = program(folder / "float.keras", "--output", path, "--opset", "15")
    assert (code, err) == (0, "")
    assert "ONNX opset 15, fp32, for onnxruntime" in out
    assert "The file computes what the model computes." in out
    x = np.random.default_rng(1).normal(size=(4, 16, 16, 3)).astype("float32")
    model = keras.saving.load_model(folder / "float.keras")
    np.testing.assert_allclose(scores(path, x), model.predict(x, verbose=0), atol=1e-6)
    assert read_model_facts(path) == FACTS
    assert {entry.version for entry in onnx.load(path).opset_import if not entry.domain} == {15}


def test_a_quantized_model_as_json(program: Program, folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "int8.onnx"
    code, out, _ = program(folder / "int8.keras", "--output", path, "--target", "tensorrt", "--json")
    record = json.loads(out)
    model = keras.saving.load_model(folder / "int8.keras")
    quantized = {layer.name for layer in model.layers if isinstance(layer, FakeQuantize)}
    assert (code, record["path"], record["target"]) == (0, str(path), "tensorrt")
    assert record["check"]["pairs"] == len(quantized) > 0
    assert {error["tensor"] for error in record["check"]["tensors"]} == quantized | {"predictions"}
    assert record["check"]["size_bytes"] == path.stat().st_size
    assert record["check"]["ok"] is True


def test_the_file_goes_beside_the_model(program: Program, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "int8.keras").write_bytes((folder / "int8.keras").read_bytes())
    assert program(tmp_path / "int8.keras", "--target", "tensorrt")[0] == 0
    assert (tmp_path / "int8.onnx").is_file()
    assert read_model_facts(tmp_path / "int8.onnx") is None


def test_half_precision(program: Program, folder: Path, tmp_path: Path) -> None:
    for name in ("float", "int8"):
        code, out, _ = program(
            *(folder / f"{name}.keras", "--target", "tensorrt", "--precision", "fp16"),
            *("--output", tmp_path / f"{name}.onnx", "--json"),
        )
        record = json.loads(out)
        assert (code, record["opset"], record["check"]["precision"]) == (0, 19, "fp16")
    types = {tensor.data_type for tensor in onnx.load(tmp_path / "float.onnx").graph.initializer}
    assert onnx.TensorProto.FLOAT not in types


def test_preprocessing_in_the_file(program: Program, folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "pixels.onnx"
    assert program(folder / "float.keras", "--embed-preprocessing", "--output", path)[0] == 0
    pixels = np.random.default_rng(1).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    model = keras.saving.load_model(folder / "float.keras")
    # Caffe's normalization by hand: BGR, less the mean.
    normalized = pixels[..., ::-1].astype("float32") - np.float32([103.939, 116.779, 123.68])
    np.testing.assert_allclose(scores(path, pixels), model.predict(normalized, verbose=0), atol=1e-5)


@pytest.mark.parametrize(("name", "held"), [("float", True), ("int8", False)])
def test_saved_model(program: Program, folder: Path, tmp_path: Path, name: str, held: bool) -> None:
    path = tmp_path / "served"
    arguments = (folder / f"{name}.keras", "--format", "saved-model", "--output", path)
    assert program(*arguments)[0] == 0
    code, out, _ = program(*arguments, "--json")  # replaces the first one
    record = json.loads(out)
    assert (code, record["form"], record["opset"], record["check"]["held"]) == (0, "saved-model", None, held)
    assert record["check"]["sqnr"] > (60 if held else 20)
    assert (path / "saved_model.pb").is_file()


def test_several_inputs_and_outputs(program: Program, tmp_path: Path) -> None:
    keras.utils.set_random_seed(1)
    left, right = keras.Input((8, 8, 3), name="left"), keras.Input((8, 8, 3), name="a_right")
    both = layers.Subtract(name="both")([layers.Conv2D(4, 3, name="one")(left), layers.Conv2D(4, 3, name="two")(right)])
    keras.Model([left, right], [both, layers.GlobalAveragePooling2D(name="mean")(both)]).save(tmp_path / "two.keras")
    for form, name in (("onnx", "two.onnx"), ("saved-model", "two")):
        code, out, _ = program(tmp_path / "two.keras", "--format", form, "--output", tmp_path / name, "--json")
        check = json.loads(out)["check"]
        assert (code, check["agreement"]) == (0, None)
        assert check["sqnr"] > 100


def test_a_wrong_file_is_kept_and_reported(
    program: Program, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exporter writes a model with another last bias, which both kinds of comparison must notice."""

    def write_another(model: Any, path: Path, **options: Any) -> Path:
        bias = model.get_layer("predictions").bias
        right = bias.numpy()
        bias.assign(right + np.float32([0.5, 0, -0.5]))
        written = export_onnx(model, path, **options)
        bias.assign(right)
        return written

    monkeypatch.setattr(export, "export_onnx", write_another)
    for name, message in (("float", "doesn't compute what its Keras model computes"), ("int8", "first at")):
        path = tmp_path / f"{name}.onnx"
        code, out, err = program(folder / f"{name}.keras", "--target", "tensorrt", "--output", path)
        assert code == 3
        assert message in err
        assert "The file computes" not in out
        assert path.is_file()


def test_mistakes(program: Program, folder: Path, tmp_path: Path) -> None:
    def expect(*arguments: str | Path, part: str) -> None:
        code, out, err = program(*arguments)
        assert (code, out) == (2, "")
        assert part in err
        assert "Received:" in err or "--" in part

    network(None).save(tmp_path / "any_size.keras")
    expect(tmp_path / "any_size.keras", part="fixed input size")
    assert not (tmp_path / "any_size.onnx").exists()
    network().save(tmp_path / "bare.keras")
    expect(tmp_path / "bare.keras", "--embed-preprocessing", part="no preprocessing.json beside")
    expect(folder / "float.keras", "--opset", "99", part="Received: opset=99")
    expect(folder / "float.keras", "--precision", "fp16", "--opset", "17", part="FP16")
    expect(folder / "float.keras", "--format", "tflite", part="--format")
    expect(folder / "float.keras", "--seed", "-1", part="seed")
    expect(folder / "float.keras", "--output", tmp_path / "model", part="ends in .onnx")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.txt").write_text("all of it")
    for form in ("onnx", "saved-model"):
        expect(folder / "float.keras", "--format", form, "--output", tmp_path / "taken", part="Received: ")
    assert (tmp_path / "taken" / "thesis.txt").is_file()
