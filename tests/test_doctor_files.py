"""`keras-qat doctor` on whole files: our own for each target and others', against what the engines themselves say."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
from onnxruntime import quantization
from onnxruntime.quantization.shape_inference import quant_pre_process

from keras_qat import apply_placement, calibrate, export_onnx, plan, trace
from keras_qat.cli.program import app, run_program
from keras_qat.doctor import Examination, Severity, examine

TARGETS = ("onnxruntime", "openvino", "tensorrt")

REFUSALS = {"int32-bias", "zero-point", "refused-operator", "unknown-operator"}
"""The errors for which TensorRT doesn't even parse a file."""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One small residual network: float, ours for each target, and ONNX Runtime's own tool's in three ways."""
    folder = tmp_path_factory.mktemp("files")
    keras.utils.set_random_seed(0)
    model, images = _network(), np.random.default_rng(0).uniform(-1, 1, (8, 16, 16, 3)).astype("float32")
    made = {"float": export_onnx(model, folder / "float.onnx")}
    for target in TARGETS:
        placement = plan(trace(model).graph, target)
        quantized = apply_placement(model, placement, calibrate(model, placement, [images]))
        made[target] = export_onnx(quantized, folder / f"{target}.onnx", target=target)
    quant_pre_process(str(made["float"]), str(folder / "prepared.onnx"))
    unsigned, signed = quantization.QuantType.QUInt8, quantization.QuantType.QInt8
    styles: dict[str, dict[str, Any]] = {
        "static": {"activation_type": unsigned, "per_channel": True},
        "static int8": {
            "activation_type": signed,
            "extra_options": {"ActivationSymmetric": True, "QuantizeBias": False},
        },
        "operators": {"activation_type": unsigned, "quant_format": quantization.QuantFormat.QOperator},
    }
    for name, style in styles.items():
        made[name] = folder / f"{name}.onnx"
        reader = _Reader(images)
        quantization.quantize_static(
            str(folder / "prepared.onnx"), str(made[name]), reader, weight_type=signed, **style
        )
    return made


class _Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, images: np.ndarray) -> None:
        self._images: Iterator[np.ndarray] = iter(images[:, None])

    def get_next(self) -> dict[str, np.ndarray] | None:
        image = next(self._images, None)
        return None if image is None else {"image": image}


def _network() -> keras.Model:
    layers = keras.layers
    image = keras.Input((16, 16, 3), name="image")
    x = layers.Conv2D(8, 3, padding="same", name="stem")(image)
    x = layers.BatchNormalization(name="stem_norm")(x)
    x = shortcut = layers.ReLU(name="stem_relu")(x)
    x = layers.Conv2D(8, 3, padding="same", name="branch")(x)
    x = layers.Add(name="add")([shortcut, x])
    x = layers.ReLU(name="add_relu")(x)
    x = layers.MaxPooling2D(2, name="pool")(x)
    x = layers.Conv2D(16, 1, strides=2, activation="relu", name="head")(x)
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    return keras.Model(image, layers.Dense(4, name="scores")(x))


@pytest.fixture(scope="module")
def examined(files: dict[str, Path]) -> dict[str, Examination]:
    return {name: examine(path, TARGETS) for name, path in files.items()}


def _found(examination: Examination, target: str) -> dict[str, Any]:
    return {finding.check: finding for finding in examination.findings if target in finding.engines}


@pytest.mark.parametrize("target", TARGETS)
def test_our_file_is_healthy_for_its_target(target: str, files: dict[str, Path]) -> None:
    found = examine(files[target], [target])
    assert found.healthy
    assert found.verdict.startswith("healthy: ")
    assert found.verdict.endswith("3 of 3 convolutions in int8, 1 of 1 dense layers")
    assert found.summary.target == target


def test_facts_are_those_of_the_file(files: dict[str, Path], examined: dict[str, Examination]) -> None:
    model = onnx.load(files["onnxruntime"])
    summary = examined["onnxruntime"].summary
    stored = sum(int(np.prod(one.dims, dtype=int)) for one in model.graph.initializer)
    quantizes = sum(node.op_type == "QuantizeLinear" for node in model.graph.node)
    assert (summary.parameters, summary.pairs) == (stored, quantizes)
    assert summary.size_bytes == files["onnxruntime"].stat().st_size
    assert (summary.opset, summary.ir_version) == (model.opset_import[0].version, model.ir_version)
    assert summary.producer.startswith("keras-qat")
    assert summary.inputs == ("image: float32 (batch, 16, 16, 3)",)


def test_a_float_file_is_said_to_be_float_and_what_to_run(examined: dict[str, Examination]) -> None:
    (finding,) = examined["float"].findings
    assert (finding.check, finding.engines, finding.severity) == ("float-file", TARGETS, Severity.WARNING)
    assert "keras-qat run" in finding.remedy
    assert finding.count == 4


def test_int32_biases_of_quantize_static_are_named_for_tensorrt(
    files: dict[str, Path], examined: dict[str, Examination]
) -> None:
    model = onnx.load(files["static"])
    int32 = {one.name for one in model.graph.initializer if one.data_type == onnx.TensorProto.INT32}
    biases = [node.name for node in model.graph.node if node.op_type == "DequantizeLinear" and node.input[0] in int32]
    finding = _found(examined["static"], "tensorrt")["int32-bias"]
    assert finding.count == len(biases) == 4
    assert set(finding.where) <= set(biases)
    assert "QuantizeBias" in finding.remedy
    assert examined["static"].healthy_for("onnxruntime")


def test_an_add_as_tensorrt_wants_it_runs_in_float_in_onnx_runtime(examined: dict[str, Examination]) -> None:
    finding = _found(examined["tensorrt"], "onnxruntime")["float-add"]
    assert finding.where == ("add",)
    assert "float" in finding.cost
    assert "float-add" not in _found(examined["tensorrt"], "tensorrt")


def test_an_add_as_onnx_runtime_wants_it_costs_tensorrt_a_fusion(examined: dict[str, Examination]) -> None:
    assert _found(examined["onnxruntime"], "tensorrt")["quantized-branch"].severity is Severity.WARNING
    assert _found(examined["onnxruntime"], "openvino")["quantized-branch"].severity is Severity.NOTE


@pytest.mark.parametrize("name", ["onnxruntime", "openvino", "tensorrt", "static"])
def test_what_is_said_to_run_in_float_is_what_onnx_runtime_runs_in_float(
    name: str, files: dict[str, Path], examined: dict[str, Examination], tmp_path: Path
) -> None:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(files[name]), options, providers=["CPUExecutionProvider"])
    run = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    said = examined[name].findings
    hurt = [finding for finding in said if "onnxruntime" in finding.engines]
    kernels = sum(finding.count for finding in hurt if finding.check in {"float-output", "float-kernels"})
    assert kernels == sum(op in {"Conv", "FusedConv"} for op in run)
    assert ("float-bias" in {finding.check for finding in hurt}) == ("Gemm" in run)
    assert ("float-add" in {finding.check for finding in hurt}) == ("Add" in run)


@pytest.mark.parametrize("name", ["float", *TARGETS, "static", "static int8", "operators"])
def test_what_tensorrt_refuses_is_what_its_parser_refuses(
    name: str, files: dict[str, Path], examined: dict[str, Examination]
) -> None:
    trt = pytest.importorskip("tensorrt_rtx")
    logger = trt.Logger(trt.Logger.INTERNAL_ERROR)
    network = trt.Builder(logger).create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parsed = trt.OnnxParser(network, logger).parse_from_file(str(files[name]))
    assert parsed == (not REFUSALS & set(_found(examined[name], "tensorrt")))


def test_operators_in_integers_are_counted_and_judged(examined: dict[str, Examination]) -> None:
    found = examined["operators"]
    assert str(found.summary.convolutions) == "3 of 3"
    assert "refused-operator" in _found(found, "tensorrt")
    assert "QGemm" in _found(found, "openvino")["refused-operator"].problem
    assert not REFUSALS & set(_found(found, "onnxruntime"))


def test_strided_convolutions_are_said_to_leave_openvinos_integers(examined: dict[str, Examination]) -> None:
    assert _found(examined["onnxruntime"], "openvino")["strided-pointwise"].where == ("head",)
    assert "strided-pointwise" not in _found(examined["openvino"], "openvino")


def test_what_the_tool_writes_symmetrically_parts_kernels_from_their_relus(examined: dict[str, Examination]) -> None:
    assert _found(examined["static int8"], "tensorrt")["parted-activation"].count == 3
    assert "per-tensor-weights" in _found(examined["static int8"], "tensorrt")


Program = Callable[..., tuple[int, str, str]]


@pytest.fixture
def program(capsys: pytest.CaptureFixture[str]) -> Program:
    def run(*arguments: Any) -> tuple[int, str, str]:
        code = run_program(["doctor", *map(str, arguments)], app)
        out, err = capsys.readouterr()
        return code, out, err

    return run


def test_exit_codes(files: dict[str, Path], tmp_path: Path, program: Program) -> None:
    assert program(files["tensorrt"], "--target", "tensorrt")[0] == 0
    assert program(files["float"])[0] == 0
    code, _, err = program(files["static"])
    assert code == 3
    assert "static.onnx" in err
    assert program(files["static"], "--target", "onnxruntime")[0] == 0
    corrupt = tmp_path / "corrupt.onnx"
    corrupt.write_bytes(b"\x0f" * 99)
    for bad in (corrupt, tmp_path / "none.onnx", tmp_path):
        code, _, err = program(bad)
        assert code == 2
        assert "Received:" in err
    code, _, err = program(files["float"], "--target", "tpu")
    assert code == 2
    assert "Unknown target" in err


def test_the_readable_files_are_shown_beside_an_unreadable_one(
    files: dict[str, Path], tmp_path: Path, program: Program
) -> None:
    code, out, err = program(files["float"], tmp_path / "none.onnx", "--json")
    assert code == 2
    float_file, none = json.loads(out)["files"]
    assert float_file["findings"][0]["check"] == "float-file"
    assert "no such file" in none["unreadable"]
    assert "none.onnx" in err


def test_table_and_json_say_the_same(files: dict[str, Path], tmp_path: Path, program: Program) -> None:
    _, table, _ = program(files["tensorrt"], "--output", tmp_path / "out.json")
    _, out, _ = program(files["tensorrt"], "--json")
    written = json.loads((tmp_path / "out.json").read_text())
    assert written == json.loads(out)
    (record,) = written["files"]
    assert record["healthy_for"] == ["tensorrt"]
    assert all(finding["check"] in table for finding in record["findings"])
    assert "healthy: " in table


def test_output_is_a_json_file(files: dict[str, Path], tmp_path: Path, program: Program) -> None:
    code, _, err = program(files["float"], "--output", tmp_path / "out.txt")
    assert code == 2
    assert ".json" in err
