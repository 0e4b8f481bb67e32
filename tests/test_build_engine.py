"""Engine files from ONNX files. TensorRT-RTX builds ahead of time, so all of this runs without a GPU."""

import re
import struct
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import keras
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from keras_qat import apply_placement, calibrate, export_onnx, plan, trace
from keras_qat.cli.program import app, run_program
from keras_qat.errors import StorageError, UnsupportedModelError, UserError
from keras_qat.runtimes import (
    ADAPTERS,
    BatchRange,
    BuildOptions,
    EngineBuild,
    Judge,
    OnnxRuntime,
    Runtime,
    build_engine,
    build_plan,
    open_runtime,
    why_no_gpu,
)
from keras_qat.runtimes.runtime import Built
from keras_qat.targets import find_engine

_VERSION_AT = 24
"""Where a TensorRT-RTX 1.7 engine holds its four version numbers, a byte each."""


@pytest.fixture(scope="module")
def onnx_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A small residual network, wide enough that its weights outweigh an engine's own structure."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    x = inputs = keras.Input((16, 16, 3), name="image")
    x = shortcut = layers.Conv2D(256, 3, padding="same", activation="relu", name="stem")(x)
    x = layers.Conv2D(256, 3, padding="same", activation="relu", name="inner")(x)
    x = layers.Conv2D(256, 3, padding="same", name="outer")(x)
    x = layers.ReLU(name="relu")(layers.Add(name="add")([shortcut, x]))
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    model = keras.Model(inputs, layers.Dense(10, "softmax", name="scores")(x))
    images = np.random.default_rng(0).uniform(-1, 1, (8, 16, 16, 3)).astype("float32")
    placement = plan(trace(model).graph, "tensorrt")
    quantized = apply_placement(model, placement, calibrate(model, placement, [images]))
    folder = tmp_path_factory.mktemp("onnx")
    return {
        "float": export_onnx(model, folder / "float.onnx", target="tensorrt"),
        "int8": export_onnx(quantized, folder / "int8.onnx", target="tensorrt"),
    }


def build_rtx(source: Path, output: Path, **options: Any) -> EngineBuild:
    return build_engine(source, output, engine="tensorrt-rtx", **options)


@pytest.fixture(scope="module")
def int8_engine(onnx_files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> EngineBuild:
    output = tmp_path_factory.mktemp("engine") / "int8.engine"
    return build_rtx(onnx_files["int8"], output, compute_capabilities=("8.6", "8.9"))


def test_int8_engine_for_two_gpus_is_smaller_than_the_float_one(
    onnx_files: dict[str, Path], int8_engine: EngineBuild, tmp_path: Path
) -> None:
    in_float = build_rtx(onnx_files["float"], tmp_path / "float.engine", compute_capabilities=("8.6", "8.9"))
    assert int8_engine.size_bytes == int8_engine.path.stat().st_size
    # 1.2 million weights: 4.7 MB of float32, 1.2 MB of int8, and some 0.7 MB of kernels for two GPUs.
    assert int8_engine.size_bytes < 0.5 * in_float.size_bytes
    assert int8_engine.compute_capabilities == ("8.6", "8.9")
    assert int8_engine.version.startswith("TensorRT-RTX 1.")
    assert int8_engine.seconds > 0
    assert (int8_engine.warnings, in_float.warnings) == ((), ())


def test_building_prints_nothing(
    onnx_files: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    build_rtx(onnx_files["int8"], tmp_path / "int8.engine")
    assert capfd.readouterr() == ("", "")
    assert [path.name for path in tmp_path.iterdir()] == ["int8.engine"]


def _one_operation(path: Path, operation: str, **attributes: float) -> Path:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 8]) for name in "xy")
    graph = helper.make_graph([helper.make_node(operation, ["x"], ["y"], "node", **attributes)], "one", [x], [y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_warnings_of_the_builder_are_kept(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = _one_operation(tmp_path / "x.onnx", "RandomNormalLike", seed=1.0)
    warnings = build_rtx(path, tmp_path / "x.engine").warnings
    assert any('ignores the "seed"' in warning for warning in warnings)
    assert run_program(["build-engine", str(path), "--engine", "tensorrt-rtx"], app) == 0
    printed, err = capfd.readouterr()
    assert (printed.splitlines()[1:], err) == ([f"warning: {warning}" for warning in warnings], "")
    # The next build has a log of its own.
    assert build_rtx(_one_operation(tmp_path / "y.onnx", "Relu"), tmp_path / "y.engine").warnings == ()


def test_what_the_engine_cannot_read_is_named(onnx_files: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match=r"can't read.*x\.onnx.*Received: NoSuchOperation node: "):
        build_rtx(_one_operation(tmp_path / "x.onnx", "NoSuchOperation"), tmp_path / "x.engine")
    # As targets for CPUs have it: uint8 with a zero-point.
    asymmetric = onnx.load(onnx_files["int8"])
    for constant in asymmetric.graph.initializer:
        if constant.name.endswith("zero_point") and not constant.dims:
            constant.CopyFrom(numpy_helper.from_array(np.array(3, np.int8), constant.name))
    onnx.save(asymmetric, tmp_path / "asymmetric.onnx")
    with pytest.raises(UnsupportedModelError, match=r"QuantizeLinear .*zero point.*with target tensorrt"):
        build_rtx(tmp_path / "asymmetric.onnx", tmp_path / "x.engine")


def test_an_engine_for_a_machine_without_gpu_says_so(int8_engine: EngineBuild) -> None:
    if why_no_gpu() is None:
        pytest.skip("this machine has a GPU")
    with pytest.raises(UserError, match=r"no usable GPU.*int8\.engine.*run the \.onnx file itself"):
        open_runtime(int8_engine.path)


def _changed(path: Path, folder: Path, change: Callable[[bytes], bytes]) -> Path:
    (folder / "changed.engine").write_bytes(change(path.read_bytes()))
    return folder / "changed.engine"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda plan: plan[: len(plan) // 2], "Serialization assertion"),
        (lambda _: b"", "header does not conform"),
        (lambda plan: b"nonsense" + plan[8:], "header does not conform"),
        (lambda plan: plan[:_VERSION_AT] + bytes([1, 5, 2, 9]) + plan[_VERSION_AT + 4 :], "created with TensorRT-RTX"),
    ],
    ids=["truncated", "empty", "corrupt", "of another version"],
)
def test_engine_that_cannot_be_loaded(
    change: Callable[[bytes], bytes], said: str, int8_engine: EngineBuild, tmp_path: Path
) -> None:
    path = _changed(int8_engine.path, tmp_path, change)
    with pytest.raises(StorageError, match=rf"{path}.*Received: .*{said}.*keras-qat build-engine.*tensorrt-rtx"):
        open_runtime(path, engine="tensorrt-rtx", trust=True)


def test_version_stands_where_the_test_above_changes_it(int8_engine: EngineBuild) -> None:
    numbers = struct.unpack_from("4B", int8_engine.path.read_bytes(), _VERSION_AT)
    assert int8_engine.version == f"TensorRT-RTX {'.'.join(map(str, numbers))}"


def test_batch_sizes(onnx_files: dict[str, Path], tmp_path: Path) -> None:
    build_rtx(onnx_files["int8"], tmp_path / "a.engine", batch=BatchRange(2, 4, 16), compute_capabilities=("8.9",))
    with pytest.raises(UserError, match=r"1 <= min <= opt <= max\. Received: min 4, opt 2, max 8"):
        BatchRange(4, 2, 8)
    fixed = onnx.load(onnx_files["int8"])
    fixed.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(fixed, tmp_path / "fixed.onnx")
    build_rtx(tmp_path / "fixed.onnx", tmp_path / "fixed.engine", compute_capabilities=("8.9",))
    with pytest.raises(UserError, match=r"batch is fixed.*\(1, 16, 16, 3\)"):
        build_rtx(tmp_path / "fixed.onnx", tmp_path / "b.engine", batch=BatchRange())
    fixed.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "height"
    onnx.save(fixed, tmp_path / "any.onnx")
    with pytest.raises(UnsupportedModelError, match=r"'image' of shape \(1, -1, 16, 3\).*fixed image size"):
        build_rtx(tmp_path / "any.onnx", tmp_path / "c.engine")


def test_unknown_compute_capability(onnx_files: dict[str, Path], tmp_path: Path) -> None:
    for wrong in ("8.7", "89", "8.9.0", "newest", ""):
        with pytest.raises(UserError, match=rf"Received: '{re.escape(wrong)}'. Choose among: .*8\.6, 8\.9"):
            build_rtx(onnx_files["int8"], tmp_path / "x.engine", compute_capabilities=("8.6", wrong))
    assert not list(tmp_path.iterdir())


def test_gpu_that_cannot_run_the_network(onnx_files: dict[str, Path], tmp_path: Path) -> None:
    """TensorRT-RTX has no float32 matrix product for Turing, which the classifier's sum needs."""
    with pytest.raises(UnsupportedModelError, match=r"can't build.*Turing.*other compute capabilities"):
        build_rtx(onnx_files["float"], tmp_path / "x.engine", compute_capabilities=("7.5",))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("engine", ["openvino", "tensorrt-rtx"])
def test_missing_and_corrupt_onnx(engine: str, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"no ONNX file.*nowhere\.onnx"):
        build_engine(tmp_path / "nowhere.onnx", engine=engine)
    (tmp_path / "bad.onnx").write_bytes(b"nonsense")
    with pytest.raises(StorageError, match=r"bad\.onnx.*Export"):
        build_engine(tmp_path / "bad.onnx", engine=engine)
    assert [path.name for path in tmp_path.iterdir()] == ["bad.onnx"]


@pytest.mark.parametrize("engine", ["openvino", "tensorrt-rtx"])
def test_output_that_cannot_be_written(engine: str, onnx_files: dict[str, Path], tmp_path: Path) -> None:
    suffix = {"openvino": ".xml", "tensorrt-rtx": ".engine"}[engine]
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="Can't write"):
        build_engine(onnx_files["int8"], tmp_path / "file" / f"x{suffix}", engine=engine)
    (tmp_path / f"folder{suffix}").mkdir()
    for wrong in (tmp_path / f"folder{suffix}", onnx_files["int8"]):
        with pytest.raises(StorageError, match="a file of its own"):
            build_engine(onnx_files["int8"], wrong, engine=engine)


def test_unknown_engine_and_engines_without_files(onnx_files: dict[str, Path]) -> None:
    with pytest.raises(UserError, match=r"Unknown engine\. Received: 'coreml'"):
        build_engine(onnx_files["int8"], engine="coreml")
    with pytest.raises(UserError, match=r"ONNX Runtime has no engine files.*openvino, tensorrt, tensorrt-rtx"):
        build_engine(onnx_files["int8"], engine="onnxruntime")


@pytest.mark.parametrize(
    ("engine", "module"), [("openvino", "openvino"), ("tensorrt", "tensorrt"), ("tensorrt-rtx", "tensorrt_rtx")]
)
def test_missing_package(
    engine: str, module: str, onnx_files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    suffix = ".xml" if engine == "openvino" else ".engine"
    with pytest.raises(UserError, match=rf"pip install 'keras-qat\[{engine}\]'"):
        build_engine(onnx_files["int8"], tmp_path / f"x{suffix}", engine=engine)


def _module(**attributes: object) -> ModuleType:
    module = ModuleType("tensorrt")
    vars(module).update(attributes)
    return module


def test_tensorrt_builds_by_the_code_that_builds_for_rtx(
    onnx_files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorRT's package has what TensorRT-RTX's has, but for the GPUs by name; so the one stands in for the other."""
    import tensorrt_rtx

    shared = {name: getattr(tensorrt_rtx, name) for name in dir(tensorrt_rtx) if name != "ComputeCapability"}
    monkeypatch.setitem(sys.modules, "tensorrt", _module(**shared))
    built = build_engine(onnx_files["int8"], tmp_path / "x.engine", engine="tensorrt", batch=BatchRange(max=32))
    assert built.version == f"TensorRT {tensorrt_rtx.__version__}"
    assert built.size_bytes > 0
    with pytest.raises(UserError, match=r"GPU of this machine only. Received: compute capability 8\.9.*tensorrt-rtx"):
        build_engine(onnx_files["int8"], tmp_path / "y.engine", engine="tensorrt", compute_capabilities=("8.9",))


def test_tensorrt_without_a_gpu(onnx_files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tensorrt_rtx

    def no_builder(_: object) -> None:
        raise TypeError("pybind11::init(): factory function returned nullptr")

    module = _module(ILogger=tensorrt_rtx.ILogger, Builder=no_builder, __version__="11.4.0")
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    with pytest.raises(UserError, match="needs an NVIDIA GPU and its driver; --engine tensorrt-rtx builds without"):
        build_plan(find_engine("tensorrt"), onnx_files["int8"], tmp_path / "x.engine", BuildOptions())


def test_ir_is_two_files_or_none(onnx_files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import openvino

    def names() -> list[str]:
        return sorted(path.name for path in tmp_path.iterdir())

    built = build_engine(onnx_files["int8"], tmp_path / "x.xml", engine="openvino")
    assert names() == ["x.bin", "x.xml"]
    assert built.size_bytes == sum((tmp_path / name).stat().st_size for name in names())
    # 1.2 million int8 weights, and what float32 there is.
    assert 1.1e6 < (tmp_path / "x.bin").stat().st_size < 1.4e6
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}

    def break_off(_: object, path: Path, **_settings: object) -> None:
        path.with_suffix(".bin").write_bytes(b"half of it")
        raise RuntimeError("No space left on device")

    monkeypatch.setattr(openvino, "save_model", break_off)
    for output in ("x.xml", "y.xml"):
        with pytest.raises(StorageError, match="No space left"):
            build_engine(onnx_files["float"], tmp_path / output, engine="openvino")
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_openvino_takes_no_options(onnx_files: dict[str, Path], tmp_path: Path) -> None:
    for options in ({"batch": BatchRange()}, {"compute_capabilities": ("8.9",)}):
        with pytest.raises(UserError, match=r"any batch and runs on any CPU\. Received:"):
            build_engine(onnx_files["int8"], tmp_path / "x.xml", engine="openvino", **options)
    with pytest.raises(UserError, match=r"named \.xml.*x\.engine"):
        build_engine(onnx_files["int8"], tmp_path / "x.engine", engine="openvino")


def test_command_says_what_it_built(
    onnx_files: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "x.engine"
    arguments = ["build-engine", str(onnx_files["int8"]), "--engine", "tensorrt-rtx", "--output", str(output)]
    capabilities = ["--compute-capability", "8.6", "--compute-capability", "8.9"]
    assert run_program([*arguments, *capabilities, "--max-batch", "8"], app) == 0
    printed = capfd.readouterr()
    assert re.fullmatch(
        rf"{output}: \d\.\d MB, built in \d+\.\d s by TensorRT-RTX [\d.]+ for compute capability 8\.6, 8\.9\n",
        printed.out,
    )
    assert printed.err == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--engine", "tensorrt-rtx", "--compute-capability", "1.0"], "Received: '1.0'"),
        (["--engine", "tensorrt-rtx", "--min-batch", "0"], "`min` must be at least 1. Received: 0"),
        (["--engine", "coreml"], "Received: 'coreml'"),
        (["--engine", "openvino", "--max-batch", "4"], "any batch"),
        ([], "--engine"),
    ],
)
def test_command_refuses_with_exit_code_2(
    arguments: list[str], said: str, onnx_files: dict[str, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    assert run_program(["build-engine", str(onnx_files["int8"]), *arguments], app) == 2
    message = " ".join(capfd.readouterr().err.split())
    assert message.startswith("error:")
    assert said in message
    assert "Traceback" not in message


def test_the_engine_that_judges_is_not_built_over_the_users(
    onnx_files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorRT has files of its own, and `x.engine` beside `x.onnx` is what the user built for production."""
    source = tmp_path / "x.onnx"
    source.write_bytes(onnx_files["int8"].read_bytes())
    (tmp_path / "x.engine").write_bytes(b"the user's")
    built: list[Path] = []

    def build(_: Path, output: Path, options: BuildOptions) -> Built:
        assert options.batch == BatchRange(max=4)
        output.write_bytes(b"ours")
        built.append(output)
        return Built("0", (output,), ())

    def open_built(path: Path, *, trust: bool) -> Runtime:
        assert (path.read_bytes(), trust) == (b"ours", True)
        return OnnxRuntime(source)

    adapter = replace(ADAPTERS["tensorrt"], build=build, open=open_built)
    monkeypatch.setitem(ADAPTERS, "tensorrt", adapter)
    with Judge("tensorrt").open(source, max_batch=4) as runtime:
        assert runtime.source == str(source)
    assert {path.name: path.read_bytes()[:4] for path in tmp_path.glob("*.engine")} == {"x.engine": b"the "}
    assert len(built) == 1
    assert not built[0].parent.exists()
