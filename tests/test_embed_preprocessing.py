"""Files that read pixels and normalize them themselves, against the plain files and against the run that makes them."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from keras_qat import apply_placement, calibrate, plan, trace
from keras_qat.data import Mode, Preprocessing
from keras_qat.data.normalizations import NORMALIZATIONS
from keras_qat.errors import DataError, UserError
from keras_qat.evaluation import EvaluationSettings, class_scores, classify, convert, evaluate_file
from keras_qat.export import export_onnx
from keras_qat.machine import read_cpu
from keras_qat.models import ModelFacts, build_model, find, read_model_facts
from keras_qat.report import Record
from keras_qat.run import Settings, check_gates, run
from keras_qat.run.start import open_start
from keras_qat.runtimes import OnnxRuntime, OpenVINORuntime, build_engine
from keras_qat.types import IoDtype, Normalization, Placement, Precision
from keras_qat.verify import TensorError, require_verified, tensor_errors, verify_file
from keras_qat.verify.promises import tensor_miss

TARGETS = ("tensorrt", "onnxruntime", "openvino")
PIXELS = np.random.default_rng(7).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)


@dataclass(frozen=True)
class Quantized:
    model: keras.Model
    placement: Placement


@pytest.fixture(scope="module")
def network(tiny_network: str) -> keras.Model:
    keras.utils.set_random_seed(3)
    return build_model(find(tiny_network), weights=None, num_classes=10, size=32)


def quantize(model: keras.Model, target: str, mode: Mode = "caffe") -> Quantized:
    placement = plan(trace(model).graph, target)
    images = np.asarray(Preprocessing(mode, 32, 32).normalize(PIXELS))
    return Quantized(apply_placement(model, placement, calibrate(model, placement, [images])), placement)


@pytest.fixture(scope="module", params=TARGETS)
def quantized(request: pytest.FixtureRequest, network: keras.Model) -> Quantized:
    return quantize(network, request.param)


def scores(path: Path, images: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    if read_cpu().vnni is False:  # it would saturate
        options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: images})[0]


@pytest.mark.parametrize("mode", ["caffe", "tf", "torch", "raw", "unit"])
def test_embedded_file_is_the_plain_file_on_normalized_pixels_bit_for_bit(
    mode: Mode, network: keras.Model, tmp_path: Path
) -> None:
    preprocessing = Preprocessing(mode, 32, 32)
    quantized = quantize(network, "onnxruntime", mode).model
    plain = export_onnx(quantized, tmp_path / "plain.onnx", target="onnxruntime")
    embedded = export_onnx(
        quantized, tmp_path / "embedded.onnx", target="onnxruntime", normalization=preprocessing.normalization
    )
    normalized = np.asarray(preprocessing.normalize(PIXELS))
    np.testing.assert_array_equal(scores(embedded, PIXELS), scores(plain, normalized))


def test_head_computes_what_numpy_computes(tmp_path: Path) -> None:
    x = keras.Input((16, 16, 3), name="image")
    identity = keras.Model(x, keras.layers.Activation("linear", name="same")(x))
    ramp = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1) + np.array([0, 85, 170], np.uint8)
    for mode, n in NORMALIZATIONS.items():
        path = export_onnx(identity, tmp_path / f"{mode}.onnx", normalization=n)
        reversed_ = ramp[..., ::-1] if n.reverse_channels else ramp
        expected = reversed_.astype(np.float32) / np.float32(n.divisor) - np.float32(n.offset)
        np.testing.assert_array_equal(scores(path, ramp), expected)


def test_input_is_uint8_of_the_same_name_and_shape(network: keras.Model, tmp_path: Path) -> None:
    export_onnx(network, tmp_path / "plain.onnx")
    export_onnx(network, tmp_path / "embedded.onnx", normalization=NORMALIZATIONS["caffe"])
    (plain,), (embedded,) = (onnx.load(tmp_path / f"{n}.onnx").graph.input for n in ("plain", "embedded"))
    assert embedded.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert (embedded.name, embedded.type.tensor_type.shape) == (plain.name, plain.type.tensor_type.shape)


def test_identities_leave_no_node(network: keras.Model, tmp_path: Path) -> None:
    def extra(n: Normalization | None) -> list[str]:
        graph = onnx.load(export_onnx(network, tmp_path / "model.onnx", normalization=n)).graph
        return [node.op_type for node in graph.node][:5]

    plain = extra(None)
    assert plain[0] == "Transpose"
    heads = {mode: extra(n)[: extra(n).index("Transpose")] for mode, n in NORMALIZATIONS.items()}
    assert heads == {
        "caffe": ["Cast", "Gather", "Sub"],
        "tf": ["Cast", "Div", "Sub"],
        "torch": ["Cast", "Div", "Sub"],
        "raw": ["Cast"],
        "unit": ["Cast", "Div"],
    }


@pytest.mark.parametrize(
    ("opset", "precision", "io_dtype"),
    [(None, "fp32", "float32"), (13, "fp32", "float32"), (None, "fp16", "float32"), (None, "fp16", "float16")],
)
def test_embedded_files_verify(
    quantized: Quantized, opset: int | None, precision: Precision, io_dtype: IoDtype, tmp_path: Path
) -> None:
    path = export_onnx(
        quantized.model,
        tmp_path / "model.onnx",
        target=quantized.placement.target,
        opset=opset,
        precision=precision,
        io_dtype=io_dtype,
        normalization=NORMALIZATIONS["caffe"],
    )
    assert verify_file(path, quantized.placement, model=quantized.model).findings == ()
    require_verified(path, quantized.placement, model=quantized.model)
    with OnnxRuntime(path) as runtime:
        assert runtime.inputs[0].dtype == np.uint8
        deployed = class_scores(runtime, PIXELS)
    simulated = quantized.model.predict_on_batch(np.asarray(Preprocessing("caffe", 32, 32).normalize(PIXELS)))
    np.testing.assert_allclose(deployed, simulated, atol=0.05 if precision == "fp16" else 0.02)


def test_quantization_within_the_head_is_found(quantized: Quantized, tmp_path: Path) -> None:
    """That the head belongs to no layer must not hide what was not planned."""
    path = export_onnx(
        quantized.model,
        tmp_path / "model.onnx",
        target=quantized.placement.target,
        normalization=NORMALIZATIONS["caffe"],
    )
    file = onnx.load(path)
    scale = onnx.numpy_helper.from_array(np.float32(1), "odd_scale")
    zero = onnx.numpy_helper.from_array(np.uint8(0), "odd_zero")
    file.graph.initializer.extend([scale, zero])
    pair = [
        onnx.helper.make_node("QuantizeLinear", ["image/pixels/output", "odd_scale", "odd_zero"], ["odd_q"], "odd/q"),
        onnx.helper.make_node("DequantizeLinear", ["odd_q", "odd_scale", "odd_zero"], ["odd_x"], "odd/dq"),
    ]
    file.graph.node[1].input[0] = "odd_x"
    for node in reversed(pair):
        file.graph.node.insert(1, node)
    onnx.save(file, path)
    findings = verify_file(path, quantized.placement, model=quantized.model).findings
    assert [str(f) for f in findings] == ["image: a Q/DQ pair stands inside it, before the node 'image/to_nchw'"]


def test_tensor_errors_feed_pixels_to_the_file_and_their_normalization_to_keras(
    quantized: Quantized, tmp_path: Path
) -> None:
    preprocessing = Preprocessing("caffe", 32, 32)
    target = quantized.placement.target
    embedded = export_onnx(
        quantized.model, tmp_path / "e.onnx", target=target, normalization=preprocessing.normalization
    )
    plain = export_onnx(quantized.model, tmp_path / "p.onnx", target=target)
    errors = tensor_errors(
        quantized.model, embedded, [(PIXELS.astype(np.float32), None)], normalize=preprocessing.normalize
    )
    assert tensor_miss("file", errors) is None
    assert errors[0].tensor == "image_quantize"
    assert errors[0].worst == 0
    assert errors == tensor_errors(quantized.model, plain, [(np.asarray(preprocessing.normalize(PIXELS)), None)])
    with pytest.raises(DataError, match=r"'image' reads whole numbers from 0 to 255 \(uint8\).*Preprocessing\.raw"):
        tensor_errors(quantized.model, embedded, [(np.asarray(preprocessing.normalize(PIXELS)), None)])


def test_tensorrt_rtx_and_openvino_take_it(network: keras.Model, tmp_path: Path) -> None:
    preprocessing = Preprocessing("caffe", 32, 32)
    model = quantize(network, "tensorrt").model
    path = export_onnx(model, tmp_path / "e.onnx", target="tensorrt", normalization=preprocessing.normalization)
    build = build_engine(path, tmp_path / "e.engine", engine="tensorrt-rtx", compute_capabilities=("8.6",))
    assert (build.warnings, build.path.is_file()) == ((), True)
    model = quantize(network, "openvino").model
    path = export_onnx(model, tmp_path / "o.onnx", target="openvino", normalization=preprocessing.normalization)
    with OpenVINORuntime(path) as runtime, OnnxRuntime(path) as reference:
        assert runtime.inputs[0].dtype == np.uint8
        np.testing.assert_allclose(class_scores(runtime, PIXELS), class_scores(reference, PIXELS), atol=0.02)


def test_only_one_rgb_image_can_be_normalized(tmp_path: Path) -> None:
    def refuse(*shapes: tuple[int, ...]) -> None:
        inputs = [keras.Input(shape, name=f"in{i}") for i, shape in enumerate(shapes)]
        flat = [keras.layers.Flatten()(x) for x in inputs]
        joined = keras.layers.Concatenate()(flat) if len(flat) > 1 else flat[0]
        model = keras.Model(inputs, keras.layers.Dense(2)(joined))
        with pytest.raises(UserError, match=r"one input of RGB images.*Received: in0.*without `normalization`"):
            export_onnx(model, tmp_path / "x.onnx", normalization=NORMALIZATIONS["tf"])
        assert list(tmp_path.iterdir()) == []

    refuse((8, 8, 3), (8, 8, 3))
    refuse((8, 8, 1))
    refuse((8, 3))
    refuse((8, 8, 4))


@pytest.mark.parametrize(
    "text", ["unit:12x20:letterbox=114:gray", "caffe:12x20:14", "custom:12x20:divisor=64:offset=2:squash"]
)
def test_oblong_files_read_the_pixels_of_any_fit(text: str, tmp_path: Path) -> None:
    """From photos to scores: the file that reads pixels, and the one that reads their normalization."""
    preprocessing = replace(Preprocessing.parse(text), whole_pixels=True)
    keras.utils.set_random_seed(1)
    x = keras.Input((12, 20, preprocessing.channels), name="image")
    features = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3, activation="relu")(x))
    model = keras.Model(x, keras.layers.Dense(2, activation="softmax")(features))
    for i in range(6):
        path = tmp_path / "photos" / f"class{i % 2}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(i).integers(0, 256, (30 + i, 25, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path)
    paths = []
    for embedded in (False, True):
        facts = ModelFacts(preprocessing, embedded, ("class0", "class1"))
        normalization = preprocessing.normalization if embedded else None
        path = export_onnx(model, tmp_path / f"{embedded}.onnx", normalization=normalization, metadata=facts.metadata())
        assert read_model_facts(path) == facts
        paths.append(path)
    found = evaluate_file(EvaluationSettings(paths[0], str(tmp_path / "photos"), compare=paths[1]))
    assert found.comparison is not None
    assert found.comparison.agreement.value == 1
    # In words, a user says the same for a file that says nothing.
    bare = export_onnx(model, tmp_path / "bare.onnx")
    photo = tmp_path / "photos" / "class0" / "0.png"
    given = Preprocessing.parse(text.removesuffix(":gray"))
    scores_of = [{c.name: c.score for c in classify(path, photo).classes} for path in paths]
    assert scores_of[0] == scores_of[1]
    by_word = classify(bare, photo, preprocessing=given).classes
    np.testing.assert_allclose(sorted(c.score for c in by_word), sorted(scores_of[0].values()), atol=0.01)
    with pytest.raises(UserError, match=r"prepared at 20 x 12 pixels, which this model doesn't read.*bare\.onnx"):
        classify(bare, photo, preprocessing=given.for_size((20, 12)))


def test_metadata_goes_into_the_file(network: keras.Model, tmp_path: Path) -> None:
    path = export_onnx(network, tmp_path / "m.onnx", target="tensorrt", metadata={"keras_qat.note": "größer"})
    found = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert found == {"keras_qat.target": "tensorrt", "keras_qat.precision": "fp32", "keras_qat.note": "größer"}
    for key in ("note", "keras_qat.precision", "keras_qat.target"):
        with pytest.raises(UserError, match=f"the key '{key}'"):
            export_onnx(network, tmp_path / "x.onnx", metadata={key: "x"})


@pytest.mark.parametrize("value", [0.5, -1.0, 256.0, np.nan, np.inf])
def test_what_is_no_pixel_is_refused(value: float) -> None:
    images = np.array([[0.0, value]], np.float32)
    with pytest.raises(DataError, match=r"'image' reads whole numbers from 0 to 255"):
        convert(images, np.dtype("uint8"))


def test_conversion_keeps_numbers() -> None:
    pixels = np.arange(256, dtype=np.float32)
    np.testing.assert_array_equal(convert(pixels, np.dtype("uint8")), np.arange(256))
    assert convert(PIXELS, np.dtype("uint8")) is PIXELS
    assert convert(PIXELS, np.dtype("float16")).dtype == np.float16
    with pytest.raises(DataError, match="int8"):
        convert(PIXELS, np.dtype("int8"))
    assert convert(np.empty((0, 3)), np.dtype("uint8")).shape == (0, 3)


@pytest.fixture(scope="module")
def settings(trained_network: str, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings.of(
        model=trained_network,
        batch_size=32,
        calibration_images=64,
        embed_preprocessing=True,
        skip_fine_tuning=True,
        skip_saved_model=True,
        skip_diagnosis=True,
        validation_images=180,
        output=tmp_path_factory.mktemp("runs"),
    )


@pytest.fixture(scope="module")
def record(settings: Settings) -> Record:
    return run(settings)


def test_a_run_deploys_files_that_read_pixels_and_keeps_its_promises(record: Record, settings: Settings) -> None:
    check_gates(record)
    baseline, ptq = record.rows
    assert baseline.keras_top1 > 0.8
    # The float file's normalization is Keras's bit for bit; what differs is the order of sums.
    assert baseline.simulation_agreement == 1
    assert baseline.simulation_sqnr is not None
    assert baseline.simulation_sqnr > 100
    assert ptq.tensor_errors[0] == TensorError("image_quantize", 0.0, 0.0)
    for name in ("baseline", "ptq"):
        with OnnxRuntime(settings.folder / f"{name}.onnx") as runtime:
            assert (runtime.inputs[0].dtype, runtime.inputs[0].shape) == (np.uint8, (None, 32, 32, 3))


@pytest.mark.usefixtures("record")
def test_a_runs_files_say_what_they_read(settings: Settings) -> None:
    preprocessing = Preprocessing("tf", 32, 32, whole_pixels=True)
    classes = tuple(map(str, range(10)))
    for name, embedded in {"ptq.onnx": True, "ptq.engine": True, "ptq.keras": False}.items():
        assert read_model_facts(settings.folder / name) == ModelFacts(preprocessing, embedded, classes)
    saved = json.loads((settings.folder / "preprocessing.json").read_text())
    assert saved["preprocessing"]["mode"] == "tf"
    assert saved["classes"] == list(classes)


def test_the_deployed_file_scores_the_pixels_of_the_data_set(record: Record, settings: Settings) -> None:
    """From outside: pixels that Pillow resized, whole as it makes them, straight into ONNX Runtime."""
    digits = load_digits()
    gray = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    pixels = [Image.fromarray(image).resize((32, 32), Image.Resampling.BILINEAR) for image in gray]
    batch = np.repeat(np.stack([np.asarray(p) for p in pixels])[..., np.newaxis], 3, -1)
    top1 = float(np.mean(scores(settings.folder / "ptq.onnx", batch).argmax(1) == digits.target))
    # These include the training images: at least as good as on the validation images, less what few images say.
    assert top1 > record.rows[1].deployed_top1 - 0.03


def test_evaluate_finds_the_figures_of_the_run(record: Record, settings: Settings) -> None:
    """On the same half of the validation images, in the file that reads pixels and in the model that doesn't."""
    path = settings.folder / "ptq.onnx"
    found = evaluate_file(
        EvaluationSettings(path, "digits", images=180, compare=settings.folder / "ptq.keras", batch_size=40)
    )
    told = record.rows[1]
    assert [file.top1.value for file in found.files] == [told.deployed_top1, told.keras_top1]
    assert found.comparison is not None
    assert found.comparison.agreement.value == told.simulation_agreement


def test_the_cached_baseline_is_trained_on_the_same_images_either_way(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[np.ndarray] = []

    def look(model: keras.Model, train: Callable[[int], Any], selection: Any, **_: Any) -> keras.Model:
        seen.extend(next(iter(dataset))[0].numpy() for dataset in (train(1), selection))
        return model

    monkeypatch.setattr("keras_qat.training.train_baseline", look)
    monkeypatch.setattr("keras_qat.run.start.cache_path", lambda *_: tmp_path / "baseline.keras")
    for embed in (False, True):
        one = settings.changed(embed_preprocessing=embed)
        open_start(one)
        (tmp_path / "baseline.keras").unlink()
    for plain, embedded in zip(seen[:2], seen[2:], strict=True):
        np.testing.assert_array_equal(plain, embedded)
