"""Diagnosis: every tensor and kernel against NumPy in float64, closed forms, deliberate faults, the command."""

import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image

from keras_qat import Overrides, apply_placement, calibrate, export_keras, plan, trace
from keras_qat.cli.program import app, run_program
from keras_qat.errors import DataError, UserError
from keras_qat.evaluation import DB_PER_BIT, Advice, advise, diagnose
from keras_qat.evaluation.diagnosis import Diagnosis, KernelDiagnosis, OutputDiagnosis, TensorDiagnosis
from keras_qat.layers import FakeQuantize
from keras_qat.models import ModelFacts, build_model, find
from keras_qat.placement import Rule, rule_from_json
from keras_qat.run import Settings
from keras_qat.types import QuantSpec

layers = keras.layers
TARGETS = ("tensorrt", "onnxruntime", "openvino")


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).normal(0.2, 1, (24, 7, 6, 3)).astype("float32")


@pytest.fixture(scope="module")
def model() -> keras.Model:
    """Conv + batch norm + ReLU, a residual Add, Dense."""
    keras.utils.set_random_seed(0)
    x = image = keras.Input((7, 6, 3), name="image")
    x = layers.Conv2D(4, 3, padding="same", use_bias=False, name="conv")(x)
    x = layers.BatchNormalization(name="bn")(x)
    x = relu = layers.ReLU(name="relu")(x)
    x = layers.Conv2D(4, 1, name="branch", bias_initializer="ones")(x)
    x = layers.Add(name="add")([relu, x])
    x = layers.Flatten(name="flat")(x)
    x = layers.Dense(5, activation="softmax", bias_initializer="ones", name="dense")(x)
    return keras.Model(image, x, name="tested")


def quantize(model: keras.Model, x: Any, target: str = "tensorrt", **options: Any) -> keras.Model:
    placement = plan(trace(model).graph, target, **options)
    return apply_placement(model, placement, calibrate(model, placement, [(x, None)]))


@pytest.fixture(scope="module")
def quantized(model: keras.Model, images: np.ndarray) -> keras.Model:
    """The quantized model, for tests that do not change it."""
    return quantize(model, images)


@pytest.fixture(scope="module")
def healthy(model: keras.Model, quantized: keras.Model, images: np.ndarray) -> Diagnosis:
    return diagnose(model, quantized, [images])


def outputs_of(model: keras.Model, names: Iterable[str], x: np.ndarray) -> dict[str, np.ndarray]:
    """The outputs of layers in float64."""
    tensors = {name: model.get_layer(name).output for name in names}
    outputs = keras.Model(model.inputs[0], tensors)(x)
    return {name: np.asarray(y, np.float64) for name, y in outputs.items()}


def sqnr(x: np.ndarray, x_hat: np.ndarray) -> float:
    x, x_hat = np.asarray(x, np.float64), np.asarray(x_hat, np.float64)
    return float(10 * np.log10(np.sum(x**2) / np.sum((x - x_hat) ** 2)))


def rounded(x: np.ndarray, amax: float, spec: QuantSpec) -> tuple[np.ndarray, np.ndarray]:
    """x̂, and which numbers saturate."""
    s = np.float32(amax) / np.float32(spec.q_max)
    q = np.round(x.astype("float32") / s)
    return np.clip(q, spec.q_min, spec.q_max) * np.float64(s), (q < spec.q_min) | (q > spec.q_max)


@pytest.mark.parametrize("target", TARGETS)
def test_tensors_are_as_in_numpy(model: keras.Model, images: np.ndarray, target: str) -> None:
    quantized = quantize(model, images, target)
    diagnosis = diagnose(model, quantized, [images[:16], images[16:]])
    assert diagnosis.images == 24
    assert {f"{t.name}_quantize" for t in diagnosis.tensors} == {
        layer.name for layer in quantized.layers if isinstance(layer, FakeQuantize)
    }
    names = {t.name: f"{t.name}_quantize" for t in diagnosis.tensors}
    exact = outputs_of(model, [*(names.keys() - {"image"}), "dense"], images) | {"image": images.astype(np.float64)}
    simulated = outputs_of(quantized, [*names.values(), "dense"], images)
    for tensor in diagnosis.tensors:
        x = exact[tensor.name]
        x_hat, beyond = rounded(x, tensor.amax, tensor.spec)
        assert tensor.alone == pytest.approx(sqnr(x, x_hat), abs=1e-3)
        assert tensor.cumulative == pytest.approx(sqnr(x, simulated[names[tensor.name]]), abs=1e-2)
        assert tensor.saturated == pytest.approx(np.mean(beyond))
        clipping = np.sum((x - x_hat)[beyond] ** 2) / np.sum((x - x_hat) ** 2)
        assert tensor.clipping == pytest.approx(clipping, rel=1e-3, abs=1e-6)
    (output,) = diagnosis.outputs
    assert output.name == "dense"
    assert output.cumulative == pytest.approx(sqnr(exact["dense"], simulated["dense"]), abs=1e-2)


def test_kernels_are_as_in_numpy(model: keras.Model, images: np.ndarray, healthy: Diagnosis) -> None:
    kernels = {k.name: k for k in healthy.kernels}
    assert list(kernels) == ["conv", "branch", "dense"]
    padded = np.pad(images.astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))  # (n, h, w, channels, 3, 3)
    computed = outputs_of(model, ["relu", "flat"], images)
    reads = {"branch": computed["relu"], "dense": computed["flat"]}
    for name, kernel in kernels.items():
        w = np.asarray(model.get_layer(name).kernel, np.float64)
        s = np.abs(w).max(axis=tuple(range(w.ndim - 1))) / 127
        w_hat = np.round(w / s) * s
        y, y_hat = (
            np.einsum("nhwcij,ijco->nhwo", windows, k) if name == "conv" else reads[name] @ k.reshape(-1, k.shape[-1])
            for k in (w, w_hat)
        )
        assert kernel.alone == pytest.approx(sqnr(y, y_hat), abs=1e-3), name
        assert kernel.weights == pytest.approx(sqnr(w, w_hat), abs=1e-3), name


@pytest.mark.parametrize(("bits", "signed"), [(4, True), (6, True), (8, True), (8, False), (3, False)])
def test_uniform_numbers_have_six_db_a_bit(bits: int, signed: bool) -> None:
    x = np.random.default_rng(0).uniform(-1 if signed else 0, 1, (64, 5000)).astype("float32")
    i, relu = keras.Input((5000,), name="numbers"), layers.ReLU(name="relu")
    spec = QuantSpec(bits=bits, signed=signed, storage="int8" if signed else "uint8")
    fake = FakeQuantize(spec, 1.0, name="numbers_quantize")
    (tensor,) = diagnose(keras.Model(i, relu(i)), keras.Model(i, layers.ReLU(name="relu")(fake(i))), [x]).tensors
    # Signal a²/3 against s²/12, where s = a / q_max.
    assert tensor.alone == pytest.approx(20 * math.log10(2 * spec.q_max), abs=0.05)
    assert tensor.alone == pytest.approx(DB_PER_BIT * (bits + (not signed)), abs=1.3)
    assert tensor.saturated == 0


def test_no_error_is_infinite_and_zeros_are_defined() -> None:
    i = keras.Input((4,), name="x")
    float_model = keras.Model(i, layers.Rescaling(1.0, name="same")(i))
    fake = FakeQuantize(QuantSpec(), 127.0, name="x_quantize")
    simulated = keras.Model(i, layers.Rescaling(1.0, name="same")(fake(i)))
    integers = np.arange(-4, 4, dtype="float32").reshape(2, 4)
    for x in (integers, np.zeros_like(integers)):
        diagnosis = diagnose(float_model, simulated, [x])
        (tensor,), (output,) = diagnosis.tensors, diagnosis.outputs
        assert (tensor.alone, tensor.cumulative, tensor.clipping, output.cumulative) == (np.inf, np.inf, 0, np.inf)
        assert advise(diagnosis) == ()
    lifted = keras.Model(i, layers.Rescaling(1.0, offset=1.0, name="same")(fake(i)))
    assert diagnose(float_model, lifted, [np.zeros_like(integers)]).outputs[0].cumulative == -np.inf
    figures = json.loads(json.dumps(diagnosis.to_dict(), allow_nan=False))
    assert float(figures["tensors"][0]["alone"]) == np.inf
    assert figures["tensors"][0]["spec"]["bits"] == 8


def ruined(model: keras.Model, images: np.ndarray, layer: str, factor: float) -> keras.Model:
    quantized = quantize(model, images)
    amax = quantized.get_layer(layer).amax
    amax.assign(amax * factor)
    return quantized


def test_range_that_clips_is_the_worst_and_named(model: keras.Model, images: np.ndarray) -> None:
    diagnosis = diagnose(model, ruined(model, images, "add_quantize", 1 / 16), [images])
    (worst,), advice = diagnosis.worst(1), advise(diagnosis)[0]
    assert isinstance(worst, TensorDiagnosis)
    assert (worst.name, advice.about) == ("add", "add")
    assert worst.saturated > 0.3
    assert worst.clipping > 0.99
    assert worst.alone < 6
    assert "saturate" in advice.finding
    assert "more images" in advice.remedy
    assert "minmax" in advice.remedy
    assert advice.to_dict()["rule"] == {"select": "add", "output": False}


def test_range_blown_up_by_outliers_is_named(model: keras.Model, images: np.ndarray, healthy: Diagnosis) -> None:
    diagnosis = diagnose(model, ruined(model, images, "relu_quantize", 64.0), [images])
    (worst,), advice = diagnosis.worst(1), advise(diagnosis)[0]
    assert isinstance(worst, TensorDiagnosis)
    assert (worst.name, worst.saturated, advice.about) == ("relu", 0, "relu")
    before = next(t.alone for t in healthy.tensors if t.name == "relu")
    assert before - worst.alone == pytest.approx(6 * DB_PER_BIT, abs=3)  # six bits lost, less what had clipped
    assert "far larger than most of the numbers" in advice.finding
    assert "outliers" in advice.remedy
    assert "mse, entropy or percentile" in advice.remedy
    assert advise(healthy) == ()


def test_few_numbers_far_beyond_the_range_are_named() -> None:
    x = np.random.default_rng(0).uniform(-1, 1, (4, 25_000)).astype("float32")
    x[0, 0] = 50
    i = keras.Input((25_000,), name="x")
    fake = FakeQuantize(QuantSpec(), 1.0, name="x_quantize")
    models = [keras.Model(i, layers.ReLU(name="relu")(tensor)) for tensor in (i, fake(i))]
    (advice,) = advise(diagnose(*models, [x]))
    assert "outliers beyond the range 1: 0.001% of the numbers" in advice.finding
    assert "minmax" not in advice.remedy


def test_kernel_is_judged_by_what_it_computes() -> None:
    """A large weight with an input near zero takes all steps of its channel, yet W keeps most of its energy."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(32, 8)).astype("float32")
    x[:, 0] *= 1e-6
    model = keras.Sequential([keras.Input((8,), name="x"), layers.Dense(4, name="dense")])
    kernel = rng.uniform(-0.3, 0.3, (8, 4))
    kernel[0] = 100
    model.get_layer("dense").kernel.assign(kernel)
    diagnosis = diagnose(model, quantize(model, x), [x])
    (dense,) = diagnosis.kernels
    assert dense.weights is not None
    assert dense.weights > 40
    assert dense.alone < 1
    assert diagnosis.worst(1) == (dense,)
    advice = advise(diagnosis)[0]
    assert advice.about == "kernel of dense"
    assert "Fine-tune" in advice.remedy
    assert advice.to_dict()["rule"] == {"select": "dense", "inputs": False, "weights": False}


def tensor(name: str, alone: float, cumulative: float) -> TensorDiagnosis:
    return TensorDiagnosis(name, name, QuantSpec(), 1.0, alone, cumulative, saturated=0.0, clipping=0.0)


def test_few_bits_and_errors_that_add_up() -> None:
    few = KernelDiagnosis("conv", QuantSpec(bits=4), alone=5.0, weights=5.0)
    assert "weight_bits" in advise(Diagnosis((), (few,), (), images=1))[0].remedy
    assert advise(Diagnosis((), (KernelDiagnosis("conv", QuantSpec(bits=4), 15.0, 15.0),), (), images=1)) == ()
    tensors = (tensor("a", 42.0, 41.0), tensor("b", 41.0, 25.0), tensor("c", 43.0, 20.0))
    (advice,) = advise(Diagnosis(tensors, (), (OutputDiagnosis("c", 18.0),), images=1))
    assert advice.about is None
    assert advice.rule is None
    assert "bias correction" in advice.remedy
    assert "fine-tune" in advice.remedy
    assert advise(Diagnosis(tensors, (), (OutputDiagnosis("c", 35.0),), images=1)) == ()
    culprit = (*tensors, tensor("d", 12.0, 12.0))
    assert [a.about for a in advise(Diagnosis(culprit, (), (OutputDiagnosis("c", 12.0),), images=1))] == ["d"]


@pytest.mark.parametrize("target", TARGETS)
def test_rules_of_the_advice_keep_it_in_float(target: str, tiny_network: str) -> None:
    graph = trace(build_model(find(tiny_network), weights=None, num_classes=4, size=32)).graph
    placement = plan(graph, target)
    for t in placement.tensors:
        bad = TensorDiagnosis(t.tensor, graph.producer(t.tensor).name, t.spec, 1.0, 0.0, 0.0, 0.5, 1.0)
        (advice,) = advise(Diagnosis((bad,), (), (), images=1))
        changed = plan(graph, target, overrides=Overrides((_read(advice),)))
        assert t.tensor not in {other.tensor for other in changed.tensors}
    for w in placement.weights:
        assert w.spec is not None
        (advice,) = advise(Diagnosis((), (KernelDiagnosis(w.layer, w.spec, 0.0, 0.0),), (), images=1))
        changed = plan(graph, target, overrides=Overrides((_read(advice),)))
        assert next(other.spec for other in changed.weights if other.layer == w.layer) is None
        assert w.layer not in {edge.consumer for edge in changed.edges if edge.quantized}


def _read(advice: Advice) -> Rule:
    return rule_from_json(json.loads(json.dumps(advice.to_dict()["rule"])))


def test_batches_make_no_difference_and_models_stay(
    model: keras.Model, quantized: keras.Model, images: np.ndarray, healthy: Diagnosis
) -> None:
    before = [[w.copy() for w in m.get_weights()] for m in (model, quantized)]
    nodes = [[len(layer._inbound_nodes) for layer in m.layers] for m in (model, quantized)]
    parts = diagnose(model, quantized, [images[15:], images[:0], images[10:15], images[:10]])
    assert parts.images == healthy.images
    for expected, figures in zip(healthy.worst(99), parts.worst(99), strict=True):
        assert (expected.name, figures.alone) == (figures.name, pytest.approx(expected.alone, abs=1e-3))
    for expected, figures in zip(healthy.tensors, parts.tensors, strict=True):
        assert figures.cumulative == pytest.approx(expected.cumulative, abs=1e-2)
        assert figures.saturated == pytest.approx(expected.saturated)
    for m, weights in zip((model, quantized), before, strict=True):
        for now, then in zip(m.get_weights(), weights, strict=True):
            np.testing.assert_array_equal(now, then)
    assert nodes == [[len(layer._inbound_nodes) for layer in m.layers] for m in (model, quantized)]


def intricate() -> keras.Model:
    """A shared layer called outside and inside a nested model, `keras.ops`, two inputs, two outputs, awkward names."""
    keras.utils.set_random_seed(3)
    shared = layers.Conv2D(3, 3, padding="same", name="shared")
    inside = keras.Input((7, 6, 3), name="inside")
    inner = keras.Model(inside, layers.ReLU(name="exact")(shared(inside)), name="simulated")
    a, b = keras.Input((7, 6, 3), name="a"), keras.Input((7, 6, 3), name="b")
    x = keras.ops.add(inner(a), shared(b))
    y = layers.Dense(2, name="kernel_0")(layers.GlobalAveragePooling2D(name="pool")(inner(x)))
    return keras.Model([a, b], [y, layers.Conv2D(2, 1, name="tensor_errors")(x)], name="intricate")


@pytest.mark.parametrize("target", TARGETS)
def test_nested_shared_and_several_outputs(images: np.ndarray, target: str) -> None:
    model, x = intricate(), [images, images[::-1] * 2]
    quantized = quantize(model, x, target)
    diagnosis = diagnose(model, quantized, [(x, None)])
    expected = [sqnr(*pair) for pair in zip(*(m(x) for m in (model, quantized)), strict=True)]
    assert [o.cumulative for o in diagnosis.outputs] == pytest.approx(expected, abs=1e-2)
    assert [k.name for k in diagnosis.kernels] == ["shared", "kernel_0", "tensor_errors"]
    names = {t.name for t in diagnosis.tensors}
    assert {"a", "b"} <= names
    assert all(t.alone > 30 for t in diagnosis.tensors)
    assert advise(diagnosis) == ()


def test_a_quantized_model_of_a_file(images: np.ndarray, tmp_path: Path) -> None:
    """Keras itself can't load a float model whose layer is shared with a model inside it."""
    model, x = intricate(), [images, images[::-1] * 2]
    quantized = quantize(model, x)
    diagnosis = diagnose(model, quantized, [(x, None)])
    again = diagnose(model, keras.saving.load_model(export_keras(quantized, tmp_path / "ptq.keras")), [(x, None)])
    assert [(k.name, k.alone) for k in again.worst(99)] == [
        (k.name, pytest.approx(k.alone)) for k in diagnosis.worst(99)
    ]


def test_shared_kernel_is_judged_by_all_its_calls(images: np.ndarray) -> None:
    i = keras.Input((7, 6, 3), name="image")
    shared = layers.Conv2D(3, 3, padding="same", use_bias=False, name="shared")
    model = keras.Model(i, shared(layers.Rescaling(-3.0, name="scaled")(shared(i))))
    quantized = quantize(model, images)
    (kernel,) = diagnose(model, quantized, [images]).kernels
    w = np.asarray(model.get_layer("shared").kernel)
    w_hat = np.asarray(quantized.get_layer("shared").quantized_kernel(w))

    def convolve(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
        return np.asarray(keras.ops.conv(x, kernel, padding="same"))

    inputs = (images, -3 * convolve(images, w))
    y, y_hat = (np.concatenate([convolve(x, kernel) for x in inputs]) for kernel in (w, w_hat))
    assert kernel.alone == pytest.approx(sqnr(y, y_hat), abs=1e-2)


def test_fine_tuned_weights_are_no_error_of_rounding(
    model: keras.Model, images: np.ndarray, healthy: Diagnosis
) -> None:
    quantized = quantize(model, images)
    before = {k.name: k.alone for k in healthy.kernels}
    for name in before:
        kernel = quantized.get_layer(name).kernel
        kernel.assign(kernel * -2)
    tuned = diagnose(model, quantized, [images])
    assert {k.name: k.alone for k in tuned.kernels} == pytest.approx(before, abs=1e-3)
    assert min(t.cumulative for t in tuned.tensors) < 0


def test_channels_first(images: np.ndarray) -> None:
    moved = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
    stem = [layers.DepthwiseConv2D(3, data_format="channels_first", name="depth"), layers.ReLU(name="relu")]
    model = keras.Sequential([keras.Input((3, 7, 6), name="image"), *stem])
    diagnosis = diagnose(model, quantize(model, moved), [moved])
    assert [k.name for k in diagnosis.kernels] == ["depth"]
    assert diagnosis.kernels[0].alone > 35


def test_bad_input(model: keras.Model, quantized: keras.Model, images: np.ndarray) -> None:
    with pytest.raises(DataError, match="Received: 0 images"):
        diagnose(model, quantized, [])
    with pytest.raises(DataError, match=r"Received: a batch of shape \(24, 7, 6, 2\)"):
        diagnose(model, quantized, [images[..., :2]])
    with pytest.raises(UserError, match=r"nothing quantized to diagnose\. Received: the model 'tested'"):
        diagnose(quantized, model, [images])
    with pytest.raises(UserError, match=r"another float model\. Received: 'a'"):
        diagnose(intricate(), quantized, [images])
    with pytest.raises(UserError, match=r"another float model\. Received: 'image_quantize'"):
        diagnose(quantized, quantized, [images])
    with pytest.raises(DataError, match=r"'image' is not finite on these images\. Received:"):
        diagnose(model, quantized, [np.full_like(images, np.nan)])


Program = Callable[..., tuple[int, str, str]]


@pytest.fixture
def program(capfd: pytest.CaptureFixture[str]) -> Program:
    """Run `keras-qat diagnose …`: (exit code, standard output, standard error)."""

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        code = run_program(["diagnose", *map(str, arguments)], app)
        captured = capfd.readouterr()
        return code, captured.out, " ".join(captured.err.split())

    return call


def write_run(folder: Path, network: str, **settings: Any) -> Path:
    """Write the files of a run that the command reads, with one wrong range."""
    keras.utils.set_random_seed(0)
    baseline = build_model(find(network), weights=None, num_classes=10, size=32)
    pixels = np.random.default_rng(0).uniform(-1, 1, (8, 32, 32, 3)).astype("float32")
    ptq = quantize(baseline, pixels, "onnxruntime")
    amax = ptq.get_layer("block_out_quantize").amax
    amax.assign(amax / 16)
    made = Settings.of(model=network, **settings)
    (folder / "settings.json").write_text(json.dumps(made.to_dict()))
    facts = ModelFacts(find(network).preprocessing, embedded=False, class_names=())
    (folder / "preprocessing.json").write_text(json.dumps(facts.to_dict()))
    export_keras(baseline, folder / "baseline.keras")
    export_keras(ptq, folder / "ptq.keras")
    return folder


@pytest.fixture
def finished_run(tiny_network: str, tmp_path: Path) -> Path:
    return write_run(tmp_path, tiny_network)


def test_command_names_the_ruined_range(program: Program, finished_run: Path) -> None:
    arguments = ("--images", "20", "--worst", "3", "--output", finished_run / "figures" / "diagnosis.json")
    code, printed, _ = program(finished_run, *arguments)
    assert code == 0
    lines = printed.splitlines()
    assert "calibrated with mse on 256 images" in lines[0]
    assert "on 20 images" in lines[2]
    assert lines[6].startswith("| block_out | ")
    assert lines[9].startswith("| output predictions | ")
    assert '`{"select": "block_out", "output": false}`' in printed
    figures = json.loads((finished_run / "figures" / "diagnosis.json").read_text(encoding="utf-8"))
    assert len(figures["tensors"]) > 3
    assert figures["advice"][0]["about"] == "block_out"
    assert figures["images"] == 20


def test_command_names_what_is_missing(program: Program, finished_run: Path, tmp_path: Path) -> None:
    def expect(*parts: str, arguments: tuple[str | Path, ...] = (finished_run,)) -> None:
        code, printed, message = program(*arguments)
        assert (code, printed) == (2, "")
        assert message.count("error:") == 1
        assert all(part in message for part in parts), message

    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "nowhere", finished_run / "ptq.keras"):
        expect("not the folder of a run", f"Received: {str(folder)!r}", "`keras-qat run`", arguments=(folder,))
    expect("no qat.keras", "baseline.keras, ptq.keras", arguments=(finished_run, "--variant", "qat"))
    for option in ("--images", "--worst"):
        expect(option, "Must be >= 1", arguments=(finished_run, option, "0"))
    ptq = finished_run / "ptq.keras"
    ptq.write_bytes(ptq.read_bytes()[:3000])
    expect("can't be read as a Keras model", f"Received: {str(ptq)!r}")
    ptq.unlink()
    expect("ptq.keras (missing)", "Received:")
    ptq.write_bytes(b"no model")
    settings = finished_run / "settings.json"
    for text, part in (("{", "isn't JSON"), ("[]", "aren't the settings"), ('{"modle": "resnet50"}', "'modle'")):
        settings.write_text(text)
        expect(part, "Received:")


def test_data_that_moved(program: Program, tiny_network: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run was made in another folder, with a relative path."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            folder = tmp_path / "elsewhere" / "photos" / split / name
            folder.mkdir(parents=True)
            for i in range(10):
                Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    (tmp_path / "run").mkdir()
    run = write_run(tmp_path / "run", tiny_network, data="photos")
    monkeypatch.chdir(tmp_path)
    code, _, message = program(run)
    assert code == 2
    assert "Received: 'photos'" in message
    assert "--data" in message
    assert str(tmp_path) in message
    figures = tmp_path / "figures.json"
    code, printed, _ = program(run, "--data", "elsewhere/photos", "--output", figures)
    assert code == 0
    assert "on 2 images" in printed
    monkeypatch.chdir(tmp_path / "elsewhere")
    code, printed, _ = program(run, "--json")
    assert (code, json.loads(printed)) == (0, json.loads(figures.read_text(encoding="utf-8")))
