"""FP16 files: every float is float16, numbers are Keras's to 11 bits, and what FP16 can't hold is refused by name."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, numpy_helper

from keras_qat import apply_placement, calibrate, export_onnx, plan, trace
from keras_qat.errors import UnsupportedModelError, UserError
from keras_qat.evaluation import class_scores
from keras_qat.onnx.passes.half_precision import HalfPrecision, HalfScales
from keras_qat.run import Settings, check_gates, run
from keras_qat.runtimes import OnnxRuntime, open_session
from keras_qat.types import Placement, TensorRange
from keras_qat.verify import tensor_errors, verify_file
from keras_qat.verify.promises import MAX_TENSOR_STRAYED_FP16

layers = keras.layers
TARGETS = ("tensorrt", "onnxruntime")
NORMAL, STEP = 2.0**-14, 2.0**-24
"""FP16's smallest normal number, and its smallest at all."""


def _pre_activation() -> keras.Model:
    """A residual block as in ResNet v2: its first batch norm has no convolution before it."""
    keras.utils.set_random_seed(4)
    x = image = keras.Input((16, 16, 3), name="image")
    x = shortcut = layers.MaxPooling2D(2, name="pool")(layers.Conv2D(16, 3, padding="same", name="stem")(x))
    x = layers.ReLU(name="relu")(layers.BatchNormalization(name="lone_bn")(x))
    x = layers.BatchNormalization(name="paired_bn")(layers.Conv2D(16, 3, padding="same", name="conv")(x))
    x = layers.Add(name="add")([shortcut, x])
    x = layers.Dense(8, "gelu", name="mlp")(layers.LayerNormalization(name="norm")(x))
    model = keras.Model(image, layers.Dense(5, name="head")(layers.GlobalAveragePooling2D(name="mean")(x)))
    rng = np.random.default_rng(4)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.gamma.assign(rng.normal(size=16))
            layer.moving_mean.assign(rng.normal(size=16))
            # The first is 0 in FP16, the last infinite.
            layer.moving_variance.assign(np.geomspace(1e-9, 1e6, 16))
    return model


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(4).uniform(-1, 1, (64, 16, 16, 3)).astype("float32")


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return _pre_activation()


@pytest.fixture(scope="module", params=TARGETS)
def quantized(
    request: pytest.FixtureRequest, model: keras.Model, images: np.ndarray
) -> tuple[keras.Model, Placement, str]:
    placement = plan(trace(model).graph, request.param)
    return apply_placement(model, placement, calibrate(model, placement, [images])), placement, request.param


def _constants(path: Path) -> dict[str, np.ndarray]:
    return {i.name: numpy_helper.to_array(i) for i in onnx.load(path).graph.initializer}


def _relative(actual: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("io_dtype", ["float32", "float16"])
def test_float_model_in_fp16_is_keras_to_eleven_bits(
    io_dtype: Any, model: keras.Model, images: np.ndarray, tmp_path: Path
) -> None:
    path = export_onnx(model, tmp_path / "model.onnx", precision="fp16", io_dtype=io_dtype)
    with OnnxRuntime(path) as runtime:
        actual = class_scores(runtime, images)
    # Ten layers, each rounding to half of 2^-10.
    assert _relative(actual, np.asarray(model(images))) < 10 * 2**-11
    wanted = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16}[io_dtype]
    graph = onnx.load(path).graph
    assert [v.type.tensor_type.elem_type for v in (*graph.input, *graph.output)] == [wanted, wanted]
    assert [v.name for v in (*graph.input, *graph.output)] == ["image", "head"]


@pytest.mark.parametrize("io_dtype", ["float32", "float16"])
def test_everything_but_the_edges_is_float16(
    io_dtype: Any, quantized: tuple[keras.Model, Placement, str], tmp_path: Path
) -> None:
    model, _, target = quantized
    path = export_onnx(model, tmp_path / "model.onnx", target=target, precision="fp16", io_dtype=io_dtype)
    inferred = onnx.shape_inference.infer_shapes(onnx.load(path), strict_mode=True, data_prop=True).graph
    float32 = [v.name for v in inferred.value_info if v.type.tensor_type.elem_type == TensorProto.FLOAT]
    assert float32 == []
    assert {str(array.dtype) for array in _constants(path).values()} <= {"float16", "int8", "uint8", "int64"}
    casts = [node.name for node in inferred.node if node.op_type == "Cast"]
    assert casts == (["image/to_float16", "head/to_float32"] if io_dtype == "float32" else [])
    assert {p.key: p.value for p in onnx.load(path).metadata_props}["keras_qat.precision"] == "fp16"


def test_every_tensor_is_within_a_step_of_the_simulation(
    quantized: tuple[keras.Model, Placement, str], images: np.ndarray, tmp_path: Path
) -> None:
    model, placement, target = quantized
    for io_dtype in ("float32", "float16"):
        path = export_onnx(model, tmp_path / "model.onnx", target=target, precision="fp16", io_dtype=io_dtype)
        for error in tensor_errors(model, path, [(images, None)]):
            assert error.worst <= 1, error
            assert error.strayed <= MAX_TENSOR_STRAYED_FP16, error
        assert verify_file(path, placement, model=model).ok


def test_wrong_fp16_scale_is_found(quantized: tuple[keras.Model, Placement, str], tmp_path: Path) -> None:
    model, placement, target = quantized
    path = export_onnx(model, tmp_path / "model.onnx", target=target, precision="fp16")
    file = onnx.load(path)
    (scale,) = (i for i in file.graph.initializer if i.name == "image_quantize/scale")
    wrong = np.nextafter(numpy_helper.to_array(scale), np.float16(1))
    scale.CopyFrom(numpy_helper.from_array(np.asarray(wrong), scale.name))
    onnx.save(file, path)
    assert ["image" in f.problem for f in verify_file(path, placement, model=model).findings] == [True]


def test_lone_batch_norm_is_mul_and_add_computed_in_float64(model: keras.Model, tmp_path: Path) -> None:
    path = export_onnx(model, tmp_path / "model.onnx", precision="fp16")
    assert "BatchNormalization" not in {node.op_type for node in onnx.load(path).graph.node}
    norm = model.get_layer("lone_bn")
    gamma, beta, mean, variance = (np.asarray(w, np.float64) for w in norm.get_weights())
    g = gamma / np.sqrt(variance + norm.epsilon)
    constants = _constants(path)
    np.testing.assert_array_equal(constants["lone_bn/mul"].ravel(), g.astype(np.float32).astype(np.float16))
    np.testing.assert_array_equal(
        constants["lone_bn/add"].ravel(), (beta - g * mean).astype(np.float32).astype(np.float16)
    )
    in_float32 = onnx.load(export_onnx(model, tmp_path / "float32.onnx"))
    assert [n.name for n in in_float32.graph.node if n.op_type == "BatchNormalization"] == ["lone_bn"]


def test_dense_bias_stays_float_in_fp16(quantized: tuple[keras.Model, Placement, str], tmp_path: Path) -> None:
    model, _, target = quantized
    constants = _constants(export_onnx(model, tmp_path / "model.onnx", target=target, precision="fp16"))
    assert constants["head/bias"].dtype == np.float16
    assert not any(array.dtype == np.int32 for array in constants.values())


def _dequantize(q: np.ndarray, s: np.ndarray) -> ir.Model:
    """DequantizeLinear over an int8 kernel, feeding a Conv."""
    x = ir.val("x", ir.DataType.FLOAT, ["batch", q.shape[1], 1, 1])
    tape = ir.tape.Tape()
    arrays = {"q": q, "s": s, "z": np.zeros(s.shape, np.int8)}
    constants = [tape.initializer(ir.tensor(array, name=name)) for name, array in arrays.items()]
    kernel = tape.op("DequantizeLinear", constants, {"axis": 0}, name="conv/kernel")
    y = tape.op("Conv", [x, kernel], name="conv")
    graph = ir.Graph([x], [y], nodes=tape.nodes, initializers=tape.initializers, opset_imports={"": 19}, name="graph")
    return ir.Model(graph, ir_version=9)


def test_small_weight_scales_are_raised_and_their_channels_requantized() -> None:
    rng = np.random.default_rng(0)
    s = np.array([0.01, NORMAL, 0.7 * NORMAL, 1e-6, 1.1e-7, 3e-9, 7.9e-33], np.float32)
    q = rng.integers(-127, 128, (len(s), 500, 1, 1)).astype(np.int8)
    q[:, 0], q[:, 1] = 127, -127
    file = _dequantize(q, s)
    HalfScales()(file)
    raised, requantized = (file.graph.initializers[name].const_value.numpy() for name in ("s", "q"))
    np.testing.assert_array_equal(raised, raised.astype(np.float16).astype(np.float32))
    np.testing.assert_array_equal(raised[:2], s[:2].astype(np.float16))
    # Next multiple of the step; by hand 1e-6 / 2^-24 = 16.8, 1.1e-7 / 2^-24 = 1.8.
    np.testing.assert_array_equal(raised[3:], np.array([17, 2, 1, 1]) * STEP)
    np.testing.assert_array_equal(requantized[:2], q[:2])
    spread = (-1, 1, 1, 1)
    w = q * s.astype(np.float64).reshape(spread)
    error = np.abs(requantized * raised.astype(np.float64).reshape(spread) - w).reshape(len(s), -1).max(1)
    assert np.all(error[2:] <= raised[2:] / 2 * (1 + 1e-9))
    assert requantized[-1].any() == np.False_
    assert requantized.min() >= -127


def test_normal_weight_scales_change_no_integer() -> None:
    s = np.random.default_rng(1).uniform(NORMAL, 1, 2000).astype(np.float32)
    q = np.tile(np.arange(-127, 128, dtype=np.int8).reshape(1, -1, 1, 1), (2000, 1, 1, 1))
    file = _dequantize(q, s)
    HalfScales()(file)
    np.testing.assert_array_equal(file.graph.initializers["q"].const_value.numpy(), q)


def _conv(kernel: float = 0.1, bias: float = 0.0) -> keras.Model:
    image = keras.Input((4, 4, 2), name="image")
    model = keras.Model(image, layers.Conv2D(3, 1, name="conv")(image))
    model.get_layer("conv").set_weights([np.full((1, 1, 2, 3), kernel), np.full(3, bias)])
    return model


def _with_range(model: keras.Model, amax: float) -> keras.Model:
    placement = plan(trace(model).graph, "tensorrt")
    return apply_placement(model, placement, {"image": TensorRange(amax, "minmax", 1)})


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (_conv(kernel=7e4), r"layer 'conv' doesn't fit FP16\. Received: 'conv/kernel' with numbers up to 7e\+04"),
        (_conv(bias=-65536), r"layer 'conv' doesn't fit FP16\. Received: 'conv/bias' with numbers up to 6\.554e\+04"),
        (_with_range(_conv(kernel=1e5), 1.0), r"weights of 'conv' don't fit FP16\. Received: weights up to 1e\+05"),
        (_with_range(_conv(), 7e4), r"'image_quantize' doesn't fit FP16: it is over 65504"),
        (_with_range(_conv(), 0.007), r"'image_quantize' doesn't fit FP16: its scale is under 6\.1e-05"),
    ],
)
def test_what_fp16_cannot_hold_is_refused_by_name(model: keras.Model, message: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match=message):
        export_onnx(model, tmp_path / "model.onnx", precision="fp16")
    assert list(tmp_path.iterdir()) == []
    assert export_onnx(model, tmp_path / "model.onnx").is_file()


def test_limits_of_fp16_are_held(tmp_path: Path) -> None:
    path = export_onnx(_conv(kernel=65504, bias=-65504), tmp_path / "model.onnx", precision="fp16")
    assert np.all(np.isfinite(_constants(path)["conv/kernel"]))
    assert export_onnx(_with_range(_conv(), 0.0078), tmp_path / "model.onnx", precision="fp16").is_file()


def test_dead_tensor_stays_zero(tmp_path: Path) -> None:
    model = _with_range(_conv(), 0.0)
    path = export_onnx(model, tmp_path / "model.onnx", target="tensorrt", precision="fp16")
    assert float(_constants(path)["image_quantize/scale"]) == 1
    with OnnxRuntime(path) as runtime:
        assert not class_scores(runtime, np.full((1, 4, 4, 2), 1e-3, np.float32)).any()
    assert verify_file(path, plan(trace(_conv()).graph, "tensorrt"), model=model).ok


def test_input_that_an_operator_fixes_to_float32_stays() -> None:
    x = ir.val("x", ir.DataType.FLOAT, [1, 2, 2, 2])
    tape = ir.tape.Tape()
    scales = tape.initializer(ir.tensor(np.array([1, 1, 2, 2], np.float32), name="scales"))
    y = tape.op("Resize", [x, None, scales], name="resize")
    z = tape.op("Mul", [y, scales], name="mul")  # The same constant where FP16 is taken.
    z.name, z.dtype, z.shape = "z", ir.DataType.FLOAT, ir.Shape([1, 2, 4, 4])
    graph = ir.Graph([x], [z], nodes=tape.nodes, initializers=tape.initializers, opset_imports={"": 19}, name="graph")
    file = ir.Model(graph, ir_version=9)
    HalfPrecision("float16")(file)
    types = {name: v.const_value.dtype for name, v in file.graph.initializers.items()}
    assert types == {"scales": ir.DataType.FLOAT16, "scales_fp32": ir.DataType.FLOAT}
    onnx.checker.check_model(ir.to_proto(file), full_check=True)


def test_operator_without_an_fp16_form_is_refused_by_name() -> None:
    x = ir.val("x", ir.DataType.FLOAT, [1])
    tape = ir.tape.Tape()
    constant = tape.initializer(ir.tensor(np.ones(1, np.float32), name="c"))
    # TfIdfVectorizer reads integers or strings only: a stand-in for any operator that takes no float16.
    y = tape.op("TfIdfVectorizer", [constant], name="words")
    graph = ir.Graph([x], [y], nodes=tape.nodes, initializers=tape.initializers, opset_imports={"": 19}, name="graph")
    with pytest.raises(ir.passes.PassError) as raised:
        ir.passes.Sequential(HalfPrecision("float32"))(ir.Model(graph, ir_version=9))
    assert isinstance(raised.value.__cause__, UnsupportedModelError)
    assert "'words' has no FP16 form. Received: the ONNX operator TfIdfVectorizer" in str(raised.value.__cause__)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "fp16", "opset": 17}, r"from 19 to 21 for FP16.*Received: opset=17"),
        ({"precision": "bf16"}, r"Unknown precision\. Received: 'bf16'.*fp32, fp16"),
        ({"io_dtype": "float16"}, r"Received: io_dtype='float16', precision='fp32'"),
        ({"precision": "fp16", "io_dtype": "float64"}, r"Received: io_dtype='float64'"),
    ],
)
def test_settings_that_do_not_go_together(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        export_onnx(_conv(), tmp_path / "model.onnx", **options)


@pytest.mark.parametrize(("options", "opset"), [({}, 17), ({"precision": "fp16"}, 19), ({"opset": 21}, 21)])
def test_opset_follows_the_precision(options: dict[str, Any], opset: int, tmp_path: Path) -> None:
    file = onnx.load(export_onnx(_conv(), tmp_path / "model.onnx", **options))
    assert file.opset_import[0].version == opset


def test_sessions_of_fp16_files_are_not_optimized(tmp_path: Path) -> None:
    def optimized(path: Path, **options: Any) -> bool:
        level = open_session(path, **options).get_session_options().graph_optimization_level
        return "DISABLE_ALL" not in str(level)

    float32 = export_onnx(_conv(), tmp_path / "fp32.onnx")
    half = export_onnx(_conv(), tmp_path / "fp16.onnx", precision="fp16")
    assert optimized(float32)
    assert not optimized(half)
    assert optimized(half, optimize=True)
    assert not optimized(float32, optimize=False)


def test_run_in_fp16(trained_network: str, tmp_path: Path) -> None:
    settings = Settings.of(
        model=trained_network, target="tensorrt", precision="fp16", calibration_images=64, validation_images=96,
        output=tmp_path, skip_fine_tuning=True, skip_saved_model=True, skip_diagnosis=True,
    )  # fmt: skip
    record = run(settings)
    check_gates(record)
    assert settings.folder.name == f"{trained_network}-digits-tensorrt-fp16"
    precisions = {
        name: {p.key: p.value for p in onnx.load(settings.folder / name).metadata_props}["keras_qat.precision"]
        for name in ("baseline.onnx", "ptq.onnx")
    }
    # The baseline is what the others are compared with.
    assert precisions == {"baseline.onnx": "fp32", "ptq.onnx": "fp16"}
    assert "only without its graph optimizer" in (settings.folder / "results.md").read_text()
    with pytest.raises(UserError, match="from 19 to 21 for FP16"):
        run(settings.changed(opset=18))
