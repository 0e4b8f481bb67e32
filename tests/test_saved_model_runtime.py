"""SavedModels, threads and ONNX Runtime on CUDA behind the contract of the engines."""

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import onnxruntime
import pytest
import tensorflow as tf

from keras_qat import apply_placement, calibrate, export_onnx, plan, trace
from keras_qat.errors import DataError, StorageError, UnsupportedModelError, UserError
from keras_qat.export import export_saved_model
from keras_qat.models import build_model, find
from keras_qat.runtimes import ADAPTERS, KerasRuntime, SavedModelRuntime, TensorSpec, open_runtime


@pytest.fixture(scope="module")
def model(tiny_network: str) -> keras.Model:
    keras.utils.set_random_seed(5)
    return build_model(find(tiny_network), weights=None, num_classes=10, size=32)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(5).uniform(-1, 1, size=(4, 32, 32, 3)).astype("float32")


@pytest.fixture(scope="module")
def folder(model: keras.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model as our SavedModel, as Keras's, and as an ONNX file."""
    made = tmp_path_factory.mktemp("files")
    export_saved_model(model, made / "ours")
    model.export(made / "keras", verbose=False)
    export_onnx(model, made / "model.onnx")
    return made


@pytest.mark.parametrize("name", ["ours", "keras"])
def test_a_saved_model_gives_the_numbers_of_the_model(
    folder: Path, name: str, model: keras.Model, images: np.ndarray
) -> None:
    with open_runtime(folder / name, trust=True) as runtime:
        assert isinstance(runtime, SavedModelRuntime)
        assert runtime.engine == f"TensorFlow {tf.__version__}"
        assert runtime.inputs == (TensorSpec("image", (None, 32, 32, 3), np.dtype("float32")),)
        assert runtime.outputs == (TensorSpec("output_0", (None, 10), np.dtype("float32")),)
        (scores,) = runtime.run(images)
    np.testing.assert_allclose(scores, model(images), rtol=0, atol=1e-5)


def test_a_quantized_saved_model_is_the_simulation(model: keras.Model, images: np.ndarray, tmp_path: Path) -> None:
    placement = plan(trace(model).graph, "tensorrt")
    quantized = apply_placement(model, placement, calibrate(model, placement, [images]))
    with open_runtime(export_saved_model(quantized, tmp_path / "int8")) as deployed, KerasRuntime(quantized) as keras_:
        found, expected = deployed.run(images)[0], keras_.run(images)[0]
    # A sum in another order may round to the neighbouring step.
    assert np.median(np.abs(found - expected)) < 1e-5
    assert np.abs(found - expected).max() < 0.05


def test_several_inputs_and_outputs_come_in_the_order_of_their_names(tmp_path: Path) -> None:
    left, right = (keras.Input((3,), name=name) for name in ("left", "around"))
    network = keras.Model([left, right], [keras.layers.Subtract()([left, right]), keras.layers.Add()([left, right])])
    network.export(tmp_path / "two", verbose=False)
    x = np.arange(6, dtype="float32").reshape(2, 3)
    with open_runtime(tmp_path / "two", trust=True) as runtime:
        assert [spec.name for spec in runtime.inputs] == ["around", "left"]
        difference, total = runtime.run(x, 10 * x)
    np.testing.assert_array_equal(difference, 9 * x)
    np.testing.assert_array_equal(total, 11 * x)


def test_inputs_that_do_not_fit_and_a_closed_model(folder: Path, images: np.ndarray) -> None:
    with open_runtime(folder / "ours") as runtime:
        with pytest.raises(DataError, match=r"Received: float64 \(4, 32, 32, 3\)"):
            runtime.run(images.astype("float64"))
        with pytest.raises(DataError, match=r"Received: float32 \(4, 32, 3\)"):
            runtime.run(images[:, 0])
    with pytest.raises(UserError, match=r"TensorFlow.*close"):
        runtime.run(images)


def save(path: Path, function: Callable[..., tf.Tensor], *spec: tf.TensorSpec, name: str = "serving_default") -> Path:
    module = tf.Module()
    module.serve = tf.function(function, input_signature=spec)
    tf.saved_model.save(module, str(path), signatures={name: module.serve})
    return path


def test_fixed_and_integer_inputs(tmp_path: Path) -> None:
    spec = tf.TensorSpec((2, 3), tf.uint8, "pixels")
    with open_runtime(
        save(tmp_path / "fixed", lambda x: {"half": tf.cast(x, tf.float16)}, spec), trust=True
    ) as runtime:
        assert [str(one) for one in (*runtime.inputs, *runtime.outputs)] == [
            "pixels: uint8 (2, 3)",
            "half: float16 (2, 3)",
        ]
        (half,) = runtime.run(np.full((2, 3), 200, np.uint8))
    np.testing.assert_array_equal(half, np.full((2, 3), 200, np.float16))


@pytest.mark.parametrize("spec", [tf.TensorSpec((None,), tf.string, "text"), tf.TensorSpec(None, tf.float32, "any")])
def test_what_is_no_array_of_numbers_is_refused(tmp_path: Path, spec: tf.TensorSpec) -> None:
    path = save(tmp_path / "odd", tf.identity, spec)
    with pytest.raises(UnsupportedModelError, match=rf"'{spec.name}' must be an array of numbers.*Received: "):
        open_runtime(path, trust=True)


def test_a_folder_that_is_no_saved_model(tmp_path: Path) -> None:
    (tmp_path / "variables").mkdir()
    with pytest.raises(StorageError, match=r"no SavedModel: it has no saved_model\.pb\. Received: "):
        open_runtime(tmp_path)
    with pytest.raises(StorageError, match="There is no model file of that name"):
        open_runtime(tmp_path / "gone", engine="tensorflow")


def test_a_saved_model_that_cannot_be_served(tmp_path: Path) -> None:
    spec = tf.TensorSpec((None, 3), tf.float32, "x")
    with pytest.raises(StorageError, match=r"no signature 'serving_default'\. Received: .* with 'train'"):
        open_runtime(save(tmp_path / "other", tf.identity, spec, name="train"), trust=True)
    tf.saved_model.save(tf.Module(), str(tmp_path / "none"))
    with pytest.raises(StorageError, match="with no signature"):
        open_runtime(tmp_path / "none", trust=True)


@pytest.mark.parametrize("part", ["saved_model.pb", "variables/variables.data-00000-of-00001"])
def test_a_corrupt_saved_model_is_named(tmp_path: Path, part: str, model: keras.Model) -> None:
    path = export_saved_model(model, tmp_path / "broken")
    content = (path / part).read_bytes()
    (path / part).write_bytes(content[: len(content) // 2])
    with pytest.raises(StorageError, match=r"can't load the SavedModel\. Received: .*broken.*Export it again"):
        open_runtime(path, trust=True)


def test_engine_and_kind_of_file_must_fit(folder: Path) -> None:
    with pytest.raises(UserError, match=r"ONNX Runtime opens \.onnx files\. Received: .*ours"):
        open_runtime(folder / "ours", engine="onnxruntime")
    with pytest.raises(UserError, match=r"TensorFlow opens the folders of SavedModels\. Received: .*model\.onnx"):
        open_runtime(folder / "model.onnx", engine="tensorflow")


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_threads_of_one_model(folder: Path, engine: str, images: np.ndarray, model: keras.Model) -> None:
    with open_runtime(folder / "model.onnx", engine=engine, threads=1) as runtime:
        assert runtime.device == "CPU, 1 threads"
        (scores,) = runtime.run(images)
    np.testing.assert_allclose(scores, model(images), rtol=0, atol=1e-5)
    with pytest.raises(UserError, match=r"`threads` must be at least 1\. Received: 0"):
        open_runtime(folder / "model.onnx", engine=engine, threads=0)


def test_engines_without_a_number_of_threads_say_so(folder: Path) -> None:
    with pytest.raises(UserError, match=r"TensorFlow takes no number of threads.*Received: threads=2.*OpenVINO"):
        open_runtime(folder / "ours", threads=2)
    with pytest.raises(UserError, match="ONNX Runtime on CUDA takes no number of threads"):
        open_runtime(folder / "model.onnx", engine="onnxruntime-cuda", threads=2)


def test_onnx_runtime_on_cuda_by_its_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    reason = ADAPTERS["onnxruntime-cuda"].why_not()
    assert reason is not None
    assert "no CUDAExecutionProvider" in reason
    with pytest.raises(UserError, match=r"CUDAExecutionProvider.*Received: device='cuda'"):
        open_runtime(folder / "model.onnx", engine="onnxruntime-cuda")
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    assert ADAPTERS["onnxruntime-cuda"].why_not() is None
