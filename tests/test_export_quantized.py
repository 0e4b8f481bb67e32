"""The quantized file: the placement edge for edge, exact folding, and the same numbers as the simulation."""

from collections import Counter
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from keras_qat import apply_placement, calibrate, plan, quantize, trace
from keras_qat.errors import StorageError
from keras_qat.export import export_onnx, export_saved_model
from keras_qat.models import build_model, find
from keras_qat.runtimes import OnnxRuntime
from keras_qat.types import Placement

TARGETS = ("tensorrt", "onnxruntime", "openvino")


def _randomize(model: keras.Model) -> None:
    """Weights, statistics and gammas of both signs, one gamma zero, one kernel channel all zero."""
    rng = np.random.default_rng(1)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            gamma = rng.normal(size=layer.gamma.shape)
            gamma[0] = 0
            layer.gamma.assign(gamma)
            layer.beta.assign(rng.normal(size=gamma.shape))
            layer.moving_mean.assign(rng.normal(size=gamma.shape))
            layer.moving_variance.assign(rng.uniform(0.5, 2, size=gamma.shape))
        elif isinstance(layer, keras.layers.Conv2D):
            kernel = rng.normal(size=layer.kernel.shape) * 0.3
            kernel[..., 1] = 0
            layer.kernel.assign(kernel)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(2).uniform(-1, 1, size=(64, 32, 32, 3)).astype("float32")


@pytest.fixture(scope="module")
def quantized(tiny_network: str, images: np.ndarray) -> dict[str, tuple[keras.Model, Placement]]:
    keras.utils.set_random_seed(0)
    model = build_model(find(tiny_network), weights=None, num_classes=10, size=32)
    _randomize(model)
    models = {}
    for target in TARGETS:
        placement = plan(trace(model).graph, target)
        ranges = calibrate(model, placement, [images[:32], images[32:]])
        models[target] = (apply_placement(model, placement, ranges), placement)
    return models


def _constants(file: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {i.name: numpy_helper.to_array(i) for i in file.graph.initializer}


@pytest.mark.parametrize("target", TARGETS)
def test_file_equals_simulation_within_a_few_output_steps(
    target: str, quantized: dict[str, Any], images: np.ndarray, tmp_path: Path
) -> None:
    model, _ = quantized[target]
    simulated = np.asarray(model(images))
    with OnnxRuntime(export_onnx(model, tmp_path / "model.onnx", target=target)) as runtime:
        (deployed,) = runtime.run(images)
    # Sums in another order may round to the neighbouring step of an inner tensor. A step of the classifier's input
    # moves a logit by at most its step times the weight, and most numbers of most images not at all.
    assert np.median(np.abs(simulated - deployed)) < 1e-5
    assert np.abs(simulated - deployed).max() < 0.05
    assert np.mean(simulated.argmax(1) == deployed.argmax(1)) > 0.98


@pytest.mark.parametrize("target", TARGETS)
def test_pairs_of_the_file_are_the_placement(target: str, quantized: dict[str, Any], tmp_path: Path) -> None:
    model, placement = quantized[target]
    file = onnx.load(export_onnx(model, tmp_path / "model.onnx", target=target))
    constants = _constants(file)
    pairs = {n.name.split("/")[0]: n for n in file.graph.node if n.op_type == "QuantizeLinear"}
    assert set(pairs) == {f"{t.tensor}_quantize" for t in placement.tensors}
    for tensor in placement.tensors:
        scale, zero_point = (constants[name] for name in pairs[f"{tensor.tensor}_quantize"].input[1:])
        assert scale.shape == zero_point.shape == ()
        assert (str(zero_point.dtype), int(zero_point)) == (tensor.spec.storage, tensor.spec.zero_point)


@pytest.mark.parametrize("target", TARGETS)
def test_batch_norm_and_padding_are_gone(target: str, quantized: dict[str, Any], tmp_path: Path) -> None:
    file = onnx.load(export_onnx(quantized[target][0], tmp_path / "model.onnx", target=target))
    count = Counter(node.op_type for node in file.graph.node)
    assert (count["BatchNormalization"], count["Pad"], count["Conv"], count["Transpose"]) == (0, 0, 3, 1)


@pytest.mark.parametrize("target", TARGETS)
def test_file_leaves_out_only_what_a_reader_infers(target: str, quantized: dict[str, Any], tmp_path: Path) -> None:
    file = onnx.load(export_onnx(quantized[target][0], tmp_path / "model.onnx", target=target))
    described = {v.name: v for v in (*file.graph.value_info, *file.graph.input, *file.graph.output)}
    inferred = onnx.shape_inference.infer_shapes(file, strict_mode=True).graph.value_info
    types = {v.name: v.type.tensor_type for v in inferred}
    numbers = {i.name: i.data_type for i in file.graph.initializer}
    for node in file.graph.node:
        if node.op_type not in {"QuantizeLinear", "DequantizeLinear"}:
            assert set(node.output) <= set(described), node.name
            continue
        assert node.output[0] not in described
        quantizes = node.op_type == "QuantizeLinear"
        made = types[node.output[0]]
        assert made.elem_type == (numbers[node.input[2]] if quantizes else onnx.TensorProto.FLOAT)
        if node.input[0] not in numbers:
            read = described[node.input[0]].type.tensor_type if quantizes else types[node.input[0]]
            assert made.shape == read.shape
    # A node's Keras nodes are recorded where its name doesn't say them, as where a batch norm is part of it.
    recorded = {node.name: node.metadata_props[0].value for node in file.graph.node if node.metadata_props}
    assert recorded["block_conv"] == '["block_conv", "block_bn"]'
    assert not {"block_add", "block_out", "block_conv_quantize/QuantizeLinear"} & set(recorded)


def test_a_head_on_five_levels_is_stored_once(tmp_path: Path) -> None:
    """The names and types of a small network's tensors must not outgrow its weights."""
    layers = keras.layers
    head = layers.Conv2D(6, 3, padding="same", name="shared_head")
    x = y = keras.Input((32, 32, 3))
    scores = []
    for level in range(5):
        y = layers.Conv2D(8, 3, strides=2 if level else 1, padding="same", activation="relu")(y)
        scores.append(layers.Reshape((-1, 6))(head(y)))
    model = keras.Model(x, layers.Concatenate(axis=1)(scores))
    images = np.random.default_rng(3).uniform(-1, 1, (2, 32, 32, 3)).astype("float32")
    for target in TARGETS:
        path = export_onnx(quantize(model, images, target).model, tmp_path / f"{target}.onnx", target=target)
        file = onnx.load(path)
        assert [i.name for i in file.graph.initializer if i.name.endswith("head/kernel")] == ["shared_head/kernel"]
        assert path.stat().st_size < 1.5 * 4 * model.count_params()


def test_a_compiled_model_rounds_weights_as_its_file_does(tmp_path: Path) -> None:
    """Weights next to a tie: in ResNet50, 3 of 25 million integers of the file were others than those simulated."""
    rng = np.random.default_rng(4)
    amax = rng.uniform(0.1, 1, 64).astype("float32")
    ties = rng.integers(-126, 126, (256, 64)) + 0.5
    kernel = (ties * (amax.astype("float64") / 127) * (1 + rng.integers(-2, 3, (256, 64)) * 2.0**-24)).astype("float32")
    kernel[0] = amax
    x = keras.Input((256,))
    model = keras.Model(x, keras.layers.Dense(64, use_bias=False, name="ties")(x))
    model.get_layer("ties").kernel.assign(kernel)
    quantization = quantize(
        model, np.eye(256, dtype="float32"), "onnxruntime", weight_method="absmax", bias_correction=False
    )
    layer = quantization.model.get_layer("ties")
    constants = _constants(onnx.load(export_onnx(quantization.model, tmp_path / "m.onnx", target="onnxruntime")))
    (kernel_name,) = (name for name in constants if name.endswith("ties/kernel"))
    simulated = keras.Sequential([keras.Input((256,)), layer]).predict(np.eye(256, dtype="float32"), verbose=0)
    integers = np.round(simulated / constants[f"{kernel_name}_scale"])
    np.testing.assert_array_equal(integers, constants[kernel_name])


def test_folding_batch_norm_changes_no_integer_but_its_sign(quantized: dict[str, Any], tmp_path: Path) -> None:
    model, _ = quantized["tensorrt"]
    constants = _constants(onnx.load(export_onnx(model, tmp_path / "model.onnx", target="tensorrt")))
    conv, norm = model.get_layer("block_conv"), model.get_layer("block_bn")
    w = np.transpose(np.asarray(conv.kernel.numpy(), np.float64), (3, 2, 0, 1))
    amax = np.abs(w).max(axis=(1, 2, 3))
    q = np.round(w / np.where(amax > 0, amax / 127, 1)[:, None, None, None])
    g = norm.gamma.numpy().astype(np.float64) / np.sqrt(norm.moving_variance.numpy().astype(np.float64) + norm.epsilon)
    stored = constants["block_conv/kernel_folded"]
    assert stored.dtype == np.int8
    scale = constants["block_conv/kernel_scale_folded"]
    assert np.all(scale > 0)
    # The channel with gamma 0 and the all-zero channel have integers 0; the others keep theirs, up to the sign.
    kept = g != 0
    np.testing.assert_array_equal(stored[kept], (q * np.sign(g)[:, None, None, None])[kept])
    assert not stored[~kept].any()
    np.testing.assert_allclose(scale[2:], (amax / 127 * np.abs(g))[2:], rtol=1e-6)
    bias = conv.bias.numpy().astype(np.float64)
    expected = g * (bias - norm.moving_mean.numpy()) + norm.beta.numpy()
    np.testing.assert_allclose(constants["block_conv/bias_folded"], expected, rtol=1e-5, atol=1e-6)


def test_dense_bias_is_int32_where_the_target_wants_it(quantized: dict[str, Any], tmp_path: Path) -> None:
    kinds = {}
    for target in TARGETS:
        file = onnx.load(export_onnx(quantized[target][0], tmp_path / f"{target}.onnx", target=target))
        gemm = next(node for node in file.graph.node if node.op_type == "Gemm")
        maker = {out: node for node in file.graph.node for out in node.output}.get(gemm.input[2])
        kinds[target] = "float32" if maker is None else str(_constants(file)[maker.input[0]].dtype)
    assert kinds == {"tensorrt": "float32", "onnxruntime": "int32", "openvino": "float32"}


@pytest.mark.parametrize("target", ["onnxruntime", "openvino"])
def test_max_pool_shares_one_scale(target: str, quantized: dict[str, Any], tmp_path: Path) -> None:
    file = onnx.load(export_onnx(quantized[target][0], tmp_path / "model.onnx", target=target))
    constants = _constants(file)
    scales = {n.name: float(constants[n.input[1]]) for n in file.graph.node if n.op_type == "QuantizeLinear"}
    assert scales["block_out_quantize/QuantizeLinear"] == scales["pool_quantize/QuantizeLinear"]


@pytest.mark.parametrize("target", TARGETS)
def test_saved_model_gives_the_same_classes(
    target: str, quantized: dict[str, Any], images: np.ndarray, tmp_path: Path
) -> None:
    import tensorflow as tf

    model, _ = quantized[target]
    loaded = tf.saved_model.load(export_saved_model(model, tmp_path / "saved"))
    actual = loaded.serve(images).numpy()
    expected = np.asarray(model(images))
    assert np.mean(actual.argmax(1) == expected.argmax(1)) > 0.98
    assert np.abs(actual - expected).max() < 0.05


def test_a_failed_write_leaves_the_old_file(
    quantized: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"the old file")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("keras_qat.export.onnx_file.save_and_release", full)
    with pytest.raises(StorageError, match="No space left"):
        export_onnx(quantized["tensorrt"][0], path)
    assert path.read_bytes() == b"the old file"
    assert list(tmp_path.iterdir()) == [path]
