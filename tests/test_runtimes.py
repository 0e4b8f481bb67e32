"""The engines behind one contract: the same numbers, and every mistake a readable error."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from keras_qat import apply_placement, calibrate, export_keras, export_onnx, plan, trace
from keras_qat.errors import DataError, StorageError, UserError
from keras_qat.evaluation import measure_latency, predict
from keras_qat.machine import Cpu
from keras_qat.models import build_model, find
from keras_qat.runtimes import (
    ADAPTERS,
    Judge,
    KerasRuntime,
    OnnxRuntime,
    OpenVINORuntime,
    Runtime,
    TensorSpec,
    build_engine,
    choose_judge,
    open_runtime,
)
from keras_qat.targets import find_targets

FLOAT32 = np.dtype("float32")
FLOAT16 = np.dtype("float16")


@dataclass(frozen=True)
class Files:
    """The tiny network, float and INT8, in every format that can be opened here."""

    folder: Path
    model: keras.Model
    images: np.ndarray

    def __truediv__(self, name: str) -> Path:
        return self.folder / name


@pytest.fixture(scope="module")
def files(tiny_network: str, tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("files")
    keras.utils.set_random_seed(5)
    rng = np.random.default_rng(5)
    model = build_model(find(tiny_network), weights=None, num_classes=10, size=32)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.beta.assign(rng.normal(size=layer.beta.shape))
    images = rng.uniform(-1, 1, size=(32, 32, 32, 3)).astype("float32")
    quantized = apply_placement(
        model, placement := plan(trace(model).graph, "onnxruntime"), calibrate(model, placement, [images])
    )
    for name, variant in (("float", model), ("int8", quantized)):
        export_keras(variant, folder / f"{name}.keras")
        export_onnx(variant, folder / f"{name}.onnx", target="onnxruntime")
        build_engine(folder / f"{name}.onnx", engine="openvino")
    return Files(folder, model, images)


def scores(runtime: Runtime, images: np.ndarray) -> np.ndarray:
    with runtime:
        (output,) = runtime.run(images)
    return output


OPENED = [
    ("float.onnx", "onnxruntime"),
    ("float.onnx", "openvino"),
    ("float.xml", "openvino"),
    ("float.keras", "keras"),
]


@pytest.mark.parametrize(("name", "engine"), OPENED)
def test_float_file_gives_the_numbers_of_the_model(files: Files, name: str, engine: str) -> None:
    expected = files.model(files.images)
    actual = scores(open_runtime(files / name, engine=engine), files.images)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("name", "engine"), OPENED)
def test_inputs_and_outputs_are_known_before_running(files: Files, name: str, engine: str) -> None:
    with open_runtime(files / name, engine=engine) as runtime:
        assert runtime.inputs == (TensorSpec("image", (None, 32, 32, 3), FLOAT32),)
        assert runtime.outputs == (TensorSpec("predictions", (None, 10), FLOAT32),)
        assert runtime.engine.startswith(ADAPTERS[engine].engine.title)


@pytest.mark.parametrize(
    ("name", "engine"), [("int8.onnx", "onnxruntime"), ("int8.onnx", "openvino"), ("int8.xml", "openvino")]
)
def test_int8_file_is_the_simulation_in_every_engine(files: Files, name: str, engine: str) -> None:
    if (reason := ADAPTERS[engine].why_inexact()) is not None:
        pytest.skip(reason)
    simulated = scores(open_runtime(files / "int8.keras"), files.images)
    deployed = scores(open_runtime(files / name, engine=engine), files.images)
    # Sums in another order may round to the neighbouring step; most numbers don't move at all.
    assert np.median(np.abs(simulated - deployed)) < 1e-5
    assert np.abs(simulated - deployed).max() < 0.05


@pytest.mark.parametrize("name", ["float", "int8"])
def test_ir_holds_every_number_of_the_onnx_file(files: Files, name: str) -> None:
    from_onnx = scores(OpenVINORuntime(files / f"{name}.onnx", threads=1), files.images)
    np.testing.assert_array_equal(scores(OpenVINORuntime(files / f"{name}.xml", threads=1), files.images), from_onnx)


def test_files_open_in_the_engine_of_their_suffix(files: Files) -> None:
    opened = {}
    for name in ("float.onnx", "float.xml", "float.keras"):
        with open_runtime(files / name) as runtime:
            opened[name] = type(runtime)
    assert opened == {"float.onnx": OnnxRuntime, "float.xml": OpenVINORuntime, "float.keras": KerasRuntime}


@pytest.fixture(scope="module")
def affine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two float16 inputs (batch, 3), two outputs: their sum, and their product's row sums as float32."""
    a, b = (helper.make_tensor_value_info(name, TensorProto.FLOAT16, ["batch", 3]) for name in "ab")
    total = helper.make_tensor_value_info("total", TensorProto.FLOAT16, ["batch", 3])
    dot = helper.make_tensor_value_info("dot", TensorProto.FLOAT, ["batch"])
    nodes = [
        helper.make_node("Add", ["a", "b"], ["total"]),
        helper.make_node("Cast", ["a"], ["a32"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["b"], ["b32"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["a32", "b32"], ["product"]),
        helper.make_node("ReduceSum", ["product", "axis"], ["dot"], keepdims=0),
    ]
    axis = helper.make_tensor("axis", TensorProto.INT64, [1], [1])
    graph = helper.make_graph(nodes, "affine", [a, b], [total, dot], [axis])
    path = tmp_path_factory.mktemp("affine") / "affine.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_several_inputs_and_outputs_of_float16(affine: Path, engine: str) -> None:
    a = np.array([[1, 2, 3], [0.5, 0, -1]], FLOAT16)
    b = np.array([[4, 5, 6], [2, 8, 0.25]], FLOAT16)
    with open_runtime(affine, engine=engine) as runtime:
        assert [str(spec) for spec in runtime.inputs] == ["a: float16 (?, 3)", "b: float16 (?, 3)"]
        assert [str(spec) for spec in runtime.outputs] == ["total: float16 (?, 3)", "dot: float32 (?,)"]
        total, dot = runtime.run(a, b)
        kept = total.copy()
        runtime.run(b, b)
    assert (total.dtype, dot.dtype) == (FLOAT16, FLOAT32)
    np.testing.assert_array_equal(total, a + b)
    np.testing.assert_array_equal(dot, [32, 0.75])
    np.testing.assert_array_equal(total, kept)


def test_keras_model_with_named_inputs_and_outputs() -> None:
    left, right = (keras.Input((3,), name=name) for name in ("left", "right"))
    sums = {
        "sum": keras.layers.Add(name="sum")([left, right]),
        "product": keras.layers.Multiply(name="product")([left, right]),
    }
    x = np.arange(6, dtype="float32").reshape(2, 3)
    with KerasRuntime(keras.Model({"left": left, "right": right}, sums)) as runtime:
        assert [spec.name for spec in runtime.inputs] == ["left", "right"]
        outputs = dict(zip((spec.name for spec in runtime.outputs), runtime.run(x, 2 * x), strict=True))
    np.testing.assert_array_equal(outputs["sum"], 3 * x)
    np.testing.assert_array_equal(outputs["product"], 2 * x * x)


@pytest.mark.parametrize(("name", "engine"), OPENED)
def test_inputs_that_do_not_fit(files: Files, name: str, engine: str) -> None:
    x = files.images[:2]
    with open_runtime(files / name, engine=engine) as runtime:
        with pytest.raises(DataError, match=r"reads 1 inputs \(image: float32 .*Received: 2 arrays"):
            runtime.run(x, x)
        with pytest.raises(DataError, match=r"'image'.*float32 \(\?, 32, 32, 3\).*Received: float32 \(2, 32, 32, 2\)"):
            runtime.run(x[..., :2])
        with pytest.raises(DataError, match=r"Received: float32 \(32, 32, 3\)"):
            runtime.run(x[0])
        with pytest.raises(DataError, match=r"Received: float64"):
            runtime.run(x.astype("float64"))
        with pytest.raises(DataError, match=r"Received: list"):
            runtime.run(x.tolist())
        runtime.run(x)


def test_closed_is_closed(files: Files) -> None:
    runtime = open_runtime(files / "float.onnx")
    runtime.close()
    runtime.close()
    with pytest.raises(UserError, match="closed"):
        runtime.run(files.images)


def _classifier16(folder: Path) -> Path:
    """Scores are the means of the channels, in float16."""
    x = helper.make_tensor_value_info("image", TensorProto.FLOAT16, ["batch", 4, 4, 3])
    y = helper.make_tensor_value_info("scores", TensorProto.FLOAT16, ["batch", 3])
    node = helper.make_node("ReduceMean", ["image"], ["scores"], axes=[1, 2], keepdims=0)
    graph = helper.make_graph([node], "classifier", [x], [y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "half.onnx")
    return folder / "half.onnx"


def test_evaluation_feeds_float16_models(tmp_path: Path) -> None:
    images = np.zeros((3, 4, 4, 3), "float32")
    images[[0, 1, 2], :, :, [1, 2, 0]] = 0.5
    with OnnxRuntime(_classifier16(tmp_path)) as runtime:
        predictions = predict(runtime, [(images, np.array([1, 2, 0]))])
        latency = measure_latency({"half": runtime}, images[:1], runs=2, warm_up=1)
    assert predictions.accuracy() == 1
    assert latency["half"].runs == 2


def test_evaluation_refuses_a_model_with_several_outputs(affine: Path) -> None:
    with OnnxRuntime(affine) as runtime, pytest.raises(DataError, match="Received: outputs total, dot"):
        predict(runtime, [(np.zeros((1, 3)), np.zeros(1, int))])


@pytest.mark.parametrize("name", ["model.onnx", "model.xml", "model.keras", "model.engine"])
def test_missing_and_corrupt_files_are_named(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    with pytest.raises(StorageError, match=f"Received: .*{name}"):
        open_runtime(path)
    path.write_bytes(b"vtrt, but nothing that follows is an engine" * 20)
    with pytest.raises(StorageError, match=rf"(?s){name}.*again"):
        open_runtime(path, trust=True)


def test_corrupt_onnx_in_openvino_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model.onnx").write_bytes(b"nonsense")
    with pytest.raises(StorageError, match=r"can't be read as an ONNX model.*model\.onnx"):
        open_runtime(tmp_path / "model.onnx", engine="openvino")
    assert capfd.readouterr() == ("", "")


def test_unknown_engine_and_files_that_no_engine_opens(files: Files, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"Received: 'ncnn'\. Choose one of: keras, onnxruntime, openvino, tensorrt"):
        open_runtime(files / "float.onnx", engine="ncnn")
    (tmp_path / "model.pt").write_bytes(b"")
    with pytest.raises(UserError, match=r"Received: .*model\.pt.*Known suffixes: .*\.onnx"):
        open_runtime(tmp_path / "model.pt")
    with pytest.raises(UserError, match=r"TensorRT opens \.engine and \.plan.*Build one"):
        open_runtime(files / "float.onnx", engine="tensorrt")


@pytest.mark.parametrize(
    ("engine", "module", "suffix"),
    [("openvino", "openvino", ".xml"), ("tensorrt", "tensorrt", ".engine"), ("tensorrt-rtx", "tensorrt_rtx", ".plan")],
)
def test_missing_package_gives_an_install_hint(
    engine: str, module: str, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    path = tmp_path / f"model{suffix}"
    path.write_bytes(b"any")
    with pytest.raises(UserError, match=rf"not installed.*pip install 'keras-qat\[{engine}\]'"):
        open_runtime(path, engine=engine, trust=True)


def test_cuda_without_a_gpu_build_of_onnx_runtime(files: Files) -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this ONNX Runtime has CUDA")
    with pytest.raises(UserError, match=r"CUDAExecutionProvider.*pip install 'onnxruntime-gpu"):
        OnnxRuntime(files / "float.onnx", device="cuda")
    with pytest.raises(UserError, match=r"Received: 'tpu'\. Choose one of: cpu, cuda"):
        OnnxRuntime(files / "float.onnx", device="tpu")


def test_onnx_runtime_that_quietly_falls_back_to_the_cpu(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    real = onnxruntime.InferenceSession

    def without_gpu(source: str, options: object, *, providers: object, **_: object) -> onnxruntime.InferenceSession:
        assert providers == [("CUDAExecutionProvider", {"use_tf32": "0"})]
        return real(source, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", without_gpu)
    with pytest.raises(UserError, match="no usable cuda device and would run on the CPU"):
        OnnxRuntime(files / "float.onnx", device="cuda")


def test_every_target_and_openvino_have_a_judge() -> None:
    judges = {target.name: target.judges for target in find_targets()}
    assert set(judges) == {"onnxruntime", "openvino", "tensorrt"}
    assert {name for names in judges.values() for name in names} <= set(ADAPTERS)
    assert all(names[0] == target for target, names in judges.items())
    assert choose_judge("onnxruntime").engine == "onnxruntime"
    assert choose_judge("somebody's own").engine == "onnxruntime"


def test_openvino_judges_its_files_where_it_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its kernels for CPUs without VNNI saturate, so what they compute is no proof of the file."""
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    monkeypatch.setattr("keras_qat.machine.read_cpu", lambda: Cpu("a new one", vnni=True))
    assert choose_judge("openvino") == Judge("openvino")
    monkeypatch.setattr("keras_qat.machine.read_cpu", lambda: Cpu("an old one", vnni=False))
    reason = "OpenVINO: its INT8 kernels saturate on a CPU without VNNI"
    assert choose_judge("openvino") == Judge("onnxruntime", (reason,))
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert choose_judge("openvino").engine == "openvino"


def test_onnx_runtime_judges_for_tensorrt_and_says_why(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    judge = choose_judge("tensorrt")
    with judge.open(files / "int8.onnx", max_batch=4) as runtime:
        said = judge.describe(runtime)
    assert said.startswith("ONNX Runtime")
    assert said.endswith(", not TensorRT: the package tensorrt is not installed")


@pytest.fixture
def tensorrt_installed(monkeypatch: pytest.MonkeyPatch) -> Callable[[str | None], None]:
    """As if the package were installed, on a machine with or without a GPU."""

    def install(why_no_gpu: str | None) -> None:
        module = ModuleType("tensorrt")
        module.__spec__ = ModuleSpec("tensorrt", None)
        monkeypatch.setitem(sys.modules, "tensorrt", module)
        monkeypatch.setitem(ADAPTERS, "tensorrt", replace(ADAPTERS["tensorrt"], why_unusable=lambda: why_no_gpu))

    return install


def test_tensorrt_judges_where_there_is_a_gpu(tensorrt_installed: Callable[[str | None], None]) -> None:
    tensorrt_installed("CUDA failed. Received: no CUDA-capable device is detected.")
    assert choose_judge("tensorrt").passed_over == (
        "TensorRT: CUDA failed. Received: no CUDA-capable device is detected.",
    )
    tensorrt_installed(None)
    assert choose_judge("tensorrt").engine == "tensorrt"


def test_without_the_package_onnx_runtime_judges_for_openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    judge = choose_judge("openvino")
    assert judge == Judge("onnxruntime", ("OpenVINO: the package openvino is not installed",))


def test_no_judge_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setattr("keras_qat.runtimes.registry.judges_of", lambda _: ("openvino",))
    with pytest.raises(UserError, match=r"judge files for openvino.*not installed.*'keras-qat\[openvino\]'"):
        choose_judge("openvino")


def test_sequential_keras_model() -> None:
    model = keras.Sequential([keras.Input((4,), name="x"), keras.layers.Dense(2, kernel_initializer="ones", name="y")])
    with KerasRuntime(model) as runtime:
        assert [str(spec) for spec in (*runtime.inputs, *runtime.outputs)] == ["x: float32 (?, 4)", "y: float32 (?, 2)"]
        (y,) = runtime.run(np.ones((3, 4), "float32"))
    np.testing.assert_array_equal(y, np.full((3, 2), 4))


class _Task(keras.Model):
    """A functional model that prepares images in `predict`, and decodes its outputs, as tasks of KerasHub do."""

    def predict_on_batch(self, x: Any) -> Any:
        return super().predict_on_batch(x / 255.0)

    def predict_step(self, data: Any) -> Any:
        return super().predict_step(data) + 100.0


def test_what_a_class_does_around_its_graph_is_no_part_of_the_model() -> None:
    x = keras.Input((4,), name="x")
    outputs = keras.layers.Dense(3, name="scores")(x)
    plain, task = keras.Model(x, outputs), _Task(x, outputs)
    numbers = np.random.default_rng(0).normal(size=(2, 4)).astype("float32")
    with KerasRuntime(task) as runtime:
        (scores,) = runtime.run(numbers)
    np.testing.assert_array_equal(scores, plain.predict_on_batch(numbers))
