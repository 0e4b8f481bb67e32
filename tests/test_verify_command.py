"""`keras-qat verify`: right files pass, a wrong file is named with exit code 3, mistakes give exit code 2."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from keras_qat import apply_placement, calibrate, export_keras, export_onnx, plan, trace
from keras_qat.cli.program import app, run_program
from keras_qat.data import Preprocessing
from keras_qat.models import ModelFacts
from keras_qat.placement import load_placement, save_placement
from keras_qat.run import Settings
from keras_qat.verify import cases as check
from keras_qat.verify.outputs import OutputErrors

layers = keras.layers
Program = Callable[..., tuple[int, str, str]]

FACTS = ModelFacts(Preprocessing("tf", 32, 32), embedded=False, class_names=tuple("0123456789"))


def network() -> keras.Model:
    x = image = keras.Input((32, 32, 3), name="image")
    x = layers.Conv2D(16, 3, strides=2, name="stem")(x)
    x = shortcut = layers.ReLU(name="stem_relu")(layers.BatchNormalization(name="stem_bn")(x))
    x = layers.Conv2D(16, 3, padding="same", name="conv")(x)
    x = layers.ReLU(name="relu")(layers.Add(name="add")([shortcut, x]))
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(image, layers.Dense(10, "softmax", name="predictions")(x), name="tiny")


def write_run(folder: Path, *, facts: ModelFacts = FACTS) -> Path:
    """Write the files of a run that the command reads."""
    keras.utils.set_random_seed(0)
    baseline = network()
    placement = plan(trace(baseline).graph, "onnxruntime")
    pixels = np.random.default_rng(0).uniform(-1, 1, (16, 32, 32, 3)).astype("float32")
    ptq = apply_placement(baseline, placement, calibrate(baseline, placement, [pixels]))
    normalization = facts.preprocessing.normalization if facts.embedded else None
    for name, model in (("baseline", baseline), ("ptq", ptq)):
        export_keras(model, folder / f"{name}.keras")
        path = folder / f"{name}.onnx"
        export_onnx(model, path, target="onnxruntime", metadata=facts.metadata(), normalization=normalization)
    settings = Settings.of(model="tiny.keras", embed_preprocessing=facts.embedded)
    (folder / "settings.json").write_text(json.dumps(settings.to_dict()))
    (folder / "preprocessing.json").write_text(json.dumps(facts.to_dict()))
    save_placement(placement, folder / "placement.json")
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("run"))


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    """A copy of the run, which the test may change."""
    return Path(shutil.copytree(whole, tmp_path / "run"))


@pytest.fixture
def program(capfd: pytest.CaptureFixture[str]) -> Program:
    """Run `keras-qat verify …`: (exit code, standard output, standard error)."""

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        code = run_program(["verify", *map(str, arguments)], app)
        captured = capfd.readouterr()
        return code, captured.out, " ".join(captured.err.split())

    return call


def edit(path: Path, change: Callable[[dict[str, np.ndarray]], Any]) -> None:
    """Change the constants of an ONNX file in place."""
    file = onnx.load(path)
    arrays = {tensor.name: numpy_helper.to_array(tensor).copy() for tensor in file.graph.initializer}
    change(arrays)
    for tensor in file.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(arrays[tensor.name], tensor.name))
    onnx.save(file, path)


def pair_of(path: Path, tensor: str) -> tuple[str, set[str]]:
    """The QuantizeLinear of a tensor, and the names of the scales of its pair."""
    nodes = onnx.load(path).graph.node
    (quantize,) = (n for n in nodes if n.op_type == "QuantizeLinear" and n.name.startswith(f"{tensor}_quantize"))
    readers = [n for n in nodes if n.op_type == "DequantizeLinear" and n.input[0] == quantize.output[0]]
    return quantize.name, {n.input[1] for n in (quantize, *readers)}


def rescale(path: Path, tensor: str) -> None:
    """Make the scale of a tensor 1% too large."""
    _, scales = pair_of(path, tensor)
    edit(path, lambda arrays: arrays.update({name: arrays[name] * np.float32(1.01) for name in scales}))


def test_a_correct_run(program: Program, whole: Path, tmp_path: Path) -> None:
    code, out, _ = program(whole, "--images", "40", "--json", "--output", tmp_path / "verify.json")
    assert code == 0
    record = json.loads(out)
    assert record == json.loads((tmp_path / "verify.json").read_text())
    assert (record["ok"], record["inputs"], record["settings"]["images"]) == (True, "digits/selection", 40)
    baseline, ptq = record["files"]
    pairs = [node for node in onnx.load(whole / "ptq.onnx").graph.node if node.op_type == "QuantizeLinear"]
    assert (baseline["pairs"], baseline["edges"], baseline["agreement"]) == (0, None, 1)
    assert baseline["sqnr"] > 100
    assert (ptq["pairs"], ptq["edges"]) == (len(pairs), len(load_placement(whole / "placement.json").edges))
    assert (ptq["findings"], ptq["images"], ptq["miss"]) == ([], 40, None)
    assert len(ptq["tensors"]) == len(pairs) + 1
    assert max(error["worst"] for error in ptq["tensors"]) <= 1


def test_the_table_has_a_row_for_each_file(program: Program, whole: Path) -> None:
    code, out, err = program(whole, "--images", "16")
    assert (code, err) == (0, "")
    rows = [line.split("│") for line in out.splitlines() if line.startswith("│")]
    assert [row[1].strip() for row in rows] == ["baseline", "PTQ"]
    assert [row[-2].strip() for row in rows] == ["ok", "ok"]
    assert "16 x digits/selection" in out


def test_a_changed_scale_differs_from_the_plan(program: Program, run: Path) -> None:
    rescale(run / "ptq.onnx", "conv")
    code, out, err = program(run, "--images", "8", "--json")
    assert code == 3
    assert "first at 'add': reading 'conv', its scale should be the simulated" in err
    files = json.loads(out)["files"]
    assert [file["ok"] for file in files] == [True, False]
    assert files[1]["findings"][0]["layer"] == "add"
    assert files[1]["tensors"] == []


def test_without_a_placement_a_changed_scale_shows_in_the_numbers(program: Program, run: Path) -> None:
    (run / "placement.json").unlink()
    right = program(run / "ptq.onnx", "--json")
    assert (right[0], json.loads(right[1])["inputs"]) == (0, "random numbers")
    rescale(run / "ptq.onnx", "conv")
    code, out, err = program(run / "ptq.onnx")
    assert code == 3
    assert "first at 'conv_quantize'. Received:" in err
    assert "missed" in out


def test_a_missing_pair_is_named(program: Program, run: Path) -> None:
    path = run / "ptq.onnx"
    file = onnx.load(path)
    name, _ = pair_of(path, "conv")
    (quantize,) = (node for node in file.graph.node if node.name == name)
    (dequantize,) = (node for node in file.graph.node if quantize.output[0] in node.input)
    for node in file.graph.node:
        node.input[:] = [quantize.input[0] if value == dequantize.output[0] else value for value in node.input]
    for node in (dequantize, quantize):
        file.graph.node.remove(node)
    onnx.save(file, path)
    code, _, err = program(path)
    assert code == 3
    assert "first at 'add'" in err


def test_a_float_file_of_other_weights_is_caught(program: Program, run: Path) -> None:
    def enlarge(arrays: dict[str, np.ndarray]) -> None:
        kernels = {name: a for name, a in arrays.items() if a.dtype == np.float32 and a.ndim > 1}
        arrays.update({name: kernel * np.float32(1.01) for name, kernel in kernels.items()})

    edit(run / "baseline.onnx", enlarge)
    code, _, err = program(run, "--images", "8")
    assert code == 3
    assert "The deployed baseline file doesn't compute what its Keras model computes. Received:" in err


@pytest.mark.parametrize(("keras_agreement", "code"), [(1.0, 3), (0.5, 0), (None, 0)])
def test_classes_may_differ_as_often_as_quantization_changed_them(
    program: Program, whole: Path, monkeypatch: pytest.MonkeyPatch, keras_agreement: float | None, code: int
) -> None:
    """Half of the classes differ. That is wrong if quantization changed none, and right if it changed as many."""
    errors = OutputErrors(sqnr=20.0, agreement=0.5, keras_agreement=keras_agreement)
    monkeypatch.setattr(check, "compare_outputs", lambda *_: errors)
    exit_code, _, err = program(whole / "ptq.onnx", "--data", "digits", "--images", "64")
    assert exit_code == code
    assert ("doesn't classify as was simulated" in err) == (code == 3)


def test_files_that_normalize_their_input(program: Program, tmp_path: Path) -> None:
    pixels = Preprocessing("tf", 32, 32, whole_pixels=True)
    run = write_run(tmp_path, facts=ModelFacts(pixels, embedded=True, class_names=FACTS.class_names))
    assert program(run, "--images", "16")[0] == 0
    assert program(run / "ptq.onnx")[0] == 0


def test_one_file_anywhere(program: Program, whole: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copy(whole / "ptq.onnx", tmp_path / "deployed.onnx"))
    options = ("--model", whole / "ptq.keras", "--placement", whole / "placement.json", "--data", "digits")
    code, out, _ = program(moved, *options, "--images", "24", "--json")
    record = json.loads(out)
    assert (code, record["inputs"], record["files"][0]["images"]) == (0, "digits/validation", 24)
    # Random pixels, normalized as the file says, reach the ends of the calibrated range.
    assert json.loads(program(moved, *options[:4], "--json")[1])["inputs"] == "random numbers"


def test_mistakes(program: Program, whole: Path, run: Path, tmp_path: Path) -> None:
    def expect(*arguments: str | Path, part: str) -> None:
        code, out, err = program(*arguments)
        assert (code, out) == (2, "")
        assert part in err
        assert "Received:" in err

    expect(whole, "--model", whole / "ptq.keras", part="a model for each file")
    expect(shutil.copy(run / "ptq.onnx", tmp_path / "alone.onnx"), part="no alone.keras beside")
    expect(run / "ptq.onnx", "--model", run / "baseline.keras", "--placement", run / "settings.json", part="placement")
    other = shutil.copy(run / "baseline.onnx", tmp_path / "other.onnx")
    expect(other, "--model", run / "ptq.keras", part="of another model")
    expect(run, "--data", "nowhere", part="no data set or folder")
    expect(run, "--output", tmp_path / "a.txt", part=".json")
    expect(run, "--preprocessing", "caffe", part="caffe")
    (run / "ptq.onnx").unlink()
    expect(run, part="ptq.onnx (missing)")
    (run / "placement.json").unlink()
    expect(run, part="placement.json (missing)")
