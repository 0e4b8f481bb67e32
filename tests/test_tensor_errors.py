"""The file cut at every Q/DQ pair: a right file is within a step everywhere, a fault is caught where it happens."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from keras_qat import apply_placement, calibrate, plan, trace
from keras_qat.errors import DataError, StorageError
from keras_qat.export import export_onnx
from keras_qat.models import build_model, find
from keras_qat.runtimes.openvino_runtime import OpenVINORuntime
from keras_qat.verify import TensorError, tensor_errors, verify_file
from keras_qat.verify.promises import tensor_miss

TARGETS = ("tensorrt", "onnxruntime", "openvino")


@dataclass(frozen=True)
class Exported:
    target: str
    model: keras.Model
    path: Path
    images: np.ndarray

    def batches(self) -> Iterator[tuple[np.ndarray, None]]:
        return ((self.images[i : i + 16], None) for i in range(0, len(self.images), 16))

    def errors(self, path: Path | None = None) -> tuple[TensorError, ...]:
        return tensor_errors(self.model, path or self.path, self.batches())


@pytest.fixture(scope="module", params=TARGETS)
def exported(request: pytest.FixtureRequest, tiny_network: str, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    keras.utils.set_random_seed(3)
    rng = np.random.default_rng(3)
    model = build_model(find(tiny_network), weights=None, num_classes=10, size=32)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.beta.assign(rng.normal(size=layer.beta.shape))
    images = rng.uniform(-1, 1, size=(32, 32, 32, 3)).astype("float32")
    placement = plan(trace(model).graph, request.param)
    quantized = apply_placement(model, placement, calibrate(model, placement, [images]))
    path = tmp_path_factory.mktemp("files") / f"{request.param}.onnx"
    return Exported(request.param, quantized, export_onnx(quantized, path, target=request.param), images)


def missed(errors: tuple[TensorError, ...]) -> list[str]:
    """The tensors over the gate's limits, in the order of the file."""
    return [error.tensor for error in errors if tensor_miss("file", [error]) is not None]


def test_right_file_is_within_a_step_everywhere(exported: Exported) -> None:
    errors = exported.errors()
    pairs = [layer.name for layer in exported.model.layers if layer.name.endswith("_quantize")]
    assert sorted(e.tensor for e in errors) == sorted([*pairs, "predictions"])
    assert missed(errors) == []


def test_errors_are_those_counted_by_hand(exported: Exported, tmp_path: Path) -> None:
    def halve(scale: np.ndarray) -> np.ndarray:
        return scale / 2

    s = np.float32(exported.model.get_layer("image_quantize").amax) / np.float32(127)
    right, wrong = (np.clip(np.round(exported.images / scale), -128, 127) for scale in (s, s / 2))
    error = exported.errors(broken(exported.path, tmp_path, "image_quantize/scale", halve))[0]
    # The border between q' and the steps beside it that is nearer to x / s.
    border = wrong - 0.5 * np.sign(wrong - right)
    distance = np.abs(exported.images / s - border)[right != wrong]
    assert (error.tensor, error.worst) == ("image_quantize", np.abs(right - wrong).max())
    assert error.differing == np.mean(right != wrong)
    assert error.carried == pytest.approx(distance.max(), abs=1e-4)
    assert error.strayed == pytest.approx(np.sum(distance > 1e-3) / right.size, abs=1e-3)


def broken(path: Path, folder: Path, constant: str, change: Callable[[np.ndarray], np.ndarray]) -> Path:
    """A copy of the file with one constant changed."""
    file = onnx.load(path)
    (found,) = (i for i in file.graph.initializer if i.name == constant)
    array = numpy_helper.to_array(found)
    found.CopyFrom(numpy_helper.from_array(change(array.copy()).astype(array.dtype), constant))
    onnx.save(file, folder / "broken.onnx")
    return folder / "broken.onnx"


def _one_percent(array: np.ndarray) -> np.ndarray:
    return array * 1.01


def _without_one_bias(array: np.ndarray) -> np.ndarray:
    array[np.abs(array).argmax()] = 0
    return array


def _without_one_tap(array: np.ndarray) -> np.ndarray:
    array[:, 0, 0, 0] = 0
    return array


@pytest.mark.parametrize(
    ("constant", "change"),
    [
        ("block_conv/kernel_scale_folded", _one_percent),
        ("block_conv/bias_folded", _without_one_bias),
        ("block_conv/kernel_folded", _without_one_tap),
    ],
)
def test_fault_in_a_layer_is_caught_at_that_layer(
    exported: Exported, constant: str, change: Callable[[np.ndarray], np.ndarray], tmp_path: Path
) -> None:
    # Where the block's convolution joins the Add unquantized, the next pair stands before or behind the pooling.
    first = {"onnxruntime": "block_bn_quantize", "openvino": "block_out_quantize", "tensorrt": "pool_quantize"}[
        exported.target
    ]
    assert missed(exported.errors(broken(exported.path, tmp_path, constant, change)))[:1] == [first]


def _one_channel(array: np.ndarray) -> np.ndarray:
    array[1] *= 1.01
    return array


def test_one_percent_of_a_single_channel_is_caught(exported: Exported, tmp_path: Path) -> None:
    wrong = broken(exported.path, tmp_path, "block_conv/kernel_scale_folded", _one_channel)
    assert len(missed(exported.errors(wrong))) == 1


@pytest.mark.parametrize("target", TARGETS)
def test_numbers_on_a_border_are_no_fault(target: str, tmp_path: Path) -> None:
    """An average of four integers lies on the border of two steps in a quarter of all cases."""
    keras.utils.set_random_seed(0)
    image = keras.Input((16, 16, 8), name="image")
    pooled = keras.layers.AveragePooling2D(2)(keras.layers.ReLU()(image))
    model = keras.Model(image, keras.layers.Conv2D(4, 3)(pooled))
    images = np.random.default_rng(0).normal(size=(32, 16, 16, 8)).astype("float32")
    placement = plan(trace(model).graph, target)
    quantized = apply_placement(model, placement, calibrate(model, placement, [images]))
    path = export_onnx(quantized, tmp_path / "ties.onnx", target=target)
    errors = tensor_errors(quantized, path, [(images, None)])
    assert missed(errors) == []


@pytest.mark.parametrize("target", TARGETS)
def test_pads_of_a_constant_stand_behind_the_pair(target: str, tmp_path: Path) -> None:
    """A max-pool's pad of -inf, as in KerasHub's ResNetV2, is on no grid; a pad of 0 is on every one."""
    keras.utils.set_random_seed(0)
    image, pixels = keras.Input((12, 12, 3), name="image"), ((0, 0), (1, 1), (1, 1), (0, 0))
    x = keras.layers.Conv2D(4, 3, name="first")(keras.ops.pad(image, pixels))
    x = keras.layers.MaxPooling2D(3, 2, name="pool")(keras.ops.pad(x, pixels, constant_values=-np.inf))
    model = keras.Model(image, keras.layers.Conv2D(4, 3, name="last")(x))
    images = np.random.default_rng(0).normal(size=(8, 12, 12, 3)).astype("float32")
    placement = plan(trace(model).graph, target)
    assert not [tensor.tensor for tensor in placement.tensors if "pad" in tensor.tensor]
    quantized = apply_placement(model, placement, calibrate(model, placement, [images]))
    path = export_onnx(quantized, tmp_path / "padded.onnx", target=target)
    assert verify_file(path, placement, model=quantized).ok
    assert "Pad" not in {node.op_type for node in onnx.load(path).graph.node}
    assert missed(tensor_errors(quantized, path, [(images, None)])) == []


@pytest.mark.parametrize("target", TARGETS)
def test_attention_is_within_a_step(target: str, tmp_path: Path) -> None:
    """ONNX Runtime's integer softmax computes with whole numbers from a table, and with the whole part of 1 / s."""
    keras.utils.set_random_seed(0)
    tokens = keras.Input((6, 8), name="tokens")
    x = keras.layers.MultiHeadAttention(2, 4, name="attention")(tokens, tokens)
    model = keras.Model(tokens, keras.layers.Dense(4)(x))
    numbers = np.random.default_rng(0).normal(size=(32, 6, 8)).astype("float32")
    placement = plan(trace(model).graph, target)
    quantized = apply_placement(model, placement, calibrate(model, placement, [numbers]), range_mode="ema")
    path = export_onnx(quantized, tmp_path / "attention.onnx", target=target)
    assert missed(tensor_errors(quantized, path, [(numbers, None)])) == []


def test_one_percent_of_a_range_is_caught(exported: Exported, tmp_path: Path) -> None:
    wrong = broken(exported.path, tmp_path, "image_quantize/scale", _one_percent)
    assert missed(exported.errors(wrong))[0] == "image_quantize"


def test_bad_input(exported: Exported, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Received: 0 images"):
        tensor_errors(exported.model, exported.path, [])
    with pytest.raises(StorageError, match=r"There is no such file\. Received: .*none\.onnx"):
        tensor_errors(exported.model, tmp_path / "none.onnx", exported.batches())
    (tmp_path / "half.onnx").write_bytes(exported.path.read_bytes()[:1000])
    with pytest.raises(StorageError, match=r"Received: .*half\.onnx"):
        tensor_errors(exported.model, tmp_path / "half.onnx", exported.batches())


def test_file_of_another_model_is_refused(exported: Exported, tmp_path: Path) -> None:
    x: Any = keras.Input((32, 32, 3), name="image")
    other = export_onnx(keras.Model(x, keras.layers.Conv2D(2, 3)(x)), tmp_path / "other.onnx")
    with pytest.raises(StorageError, match="of another model"):
        tensor_errors(exported.model, other, exported.batches())


def test_a_dictionary_of_inputs_goes_by_name(tmp_path: Path) -> None:
    left, right = keras.Input((4, 4, 2), name="left"), keras.Input((4, 4, 2), name="right")
    conv = keras.layers.Conv2D(3, 3, name="conv")
    model = keras.Model({"left": left, "right": right}, conv(keras.layers.Subtract()([left, right])))
    random = np.random.default_rng(0)
    images = {name: random.normal(size=(8, 4, 4, 2)).astype("float32") for name in ("right", "left")}
    placement = plan(trace(model).graph, "tensorrt")
    quantized = apply_placement(model, placement, calibrate(model, placement, [images]))
    path = export_onnx(quantized, tmp_path / "model.onnx", target="tensorrt")
    errors = tensor_errors(quantized, path, [(images, None)])
    assert max(error.worst for error in errors) <= 1


def test_outputs_of_any_type_are_compared(tmp_path: Path) -> None:
    """Truth values can't be subtracted, and whole numbers without a sign wrap."""
    x = keras.Input((4, 4, 2), name="x")
    y = keras.layers.Conv2D(3, 3, name="conv")(x)
    model = keras.Model(x, [y, x > 0, keras.ops.cast(x > 0, "uint8"), keras.ops.argmax(x, axis=-1)])
    numbers = np.random.default_rng(0).normal(size=(8, 4, 4, 2)).astype("float32")
    placement = plan(trace(model).graph, "onnxruntime")
    quantized = apply_placement(model, placement, calibrate(model, placement, [numbers]))
    path = export_onnx(quantized, tmp_path / "model.onnx", target="onnxruntime")
    assert missed(tensor_errors(quantized, path, [(numbers, None)])) == []
    other = keras.Model(
        quantized.input, [quantized.outputs[0], *(x < 0 for x in quantized.inputs), *quantized.outputs[2:]]
    )
    wrong = tensor_errors(other, path, [(numbers, None)])
    assert [error.worst for error in wrong if error.worst > 1] == [127]


def test_an_input_that_openvino_knows_by_several_names(tmp_path: Path) -> None:
    """OpenVINO removes transpositions that undo each other, and gives the input their names too."""
    x = keras.Input((5, 7, 2), name="x")
    y = keras.ops.max(keras.layers.ReLU()(keras.layers.Permute((3, 2, 1))(x)), axis=2)
    model = keras.Model(x, y)
    numbers = np.random.default_rng(0).normal(size=(4, 5, 7, 2)).astype("float32")
    path = export_onnx(model, tmp_path / "model.onnx", target="openvino")
    assert missed(tensor_errors(model, path, [(numbers, None)])) == []
    with OpenVINORuntime(path) as runtime:
        assert [spec.name for spec in runtime.inputs] == ["x"]
