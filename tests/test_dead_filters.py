"""Filters with weights next to nothing and a bias: the file computes what the simulation does, in each engine."""

from pathlib import Path

import keras
import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
from onnx import numpy_helper

from keras_qat import export_onnx, quantize
from keras_qat.verify import tensor_errors
from keras_qat.verify.promises import tensor_miss

TARGETS = ("onnxruntime", "openvino", "tensorrt")

MAGNITUDES = (0.0, 1e-30, 1e-12, 1e-7, 1e-4)
"""The largest weights of the dead filters. Those of 1e-4 are small, but not dead."""


def dead_network() -> keras.Model:
    """Convolutions of each kind and a Dense layer, each with filters of every magnitude, and one with γ = 0."""
    keras.utils.set_random_seed(0)
    layers, image = keras.layers, keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(8, 3, padding="same", name="conv")(image)
    x = layers.ReLU()(x)
    x = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    x = layers.ReLU()(x)
    x = layers.BatchNormalization(name="norm")(layers.Conv2D(8, 1, use_bias=False, name="normed")(x))
    x = layers.ReLU()(x)
    x = layers.GlobalAveragePooling2D()(x)
    x = layers.ReLU()(layers.Dense(8, name="dense")(x))
    model = keras.Model(image, layers.Dense(4, name="scores")(x))
    rng = np.random.default_rng(0)
    for name, axis in (("conv", -1), ("depthwise", -2), ("dense", -1)):
        layer = model.get_layer(name)
        kernel = np.array(layer.kernel)
        by_channel = np.moveaxis(kernel, axis, 0)
        for channel, magnitude in enumerate(MAGNITUDES):
            by_channel[channel] *= magnitude / max(np.abs(by_channel[channel]).max(), 1e-30)
        layer.kernel.assign(kernel)
        layer.bias.assign(rng.uniform(0.5, 3.0, 8))
    norm = model.get_layer("norm")
    norm.gamma.assign([0, 0, 1e-20, 1e-9, 1, 1, 1, 1])
    norm.beta.assign(rng.uniform(0.5, 3.0, 8))
    return model


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(16, 8, 8, 3)).astype("float32")


@pytest.fixture(scope="module", params=TARGETS)
def exported(
    request: pytest.FixtureRequest, images: np.ndarray, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, keras.Model, Path]:
    quantized = quantize(dead_network(), images, request.param).model
    path = tmp_path_factory.mktemp("dead") / "dead.onnx"
    return request.param, quantized, export_onnx(quantized, path, target=request.param)


def _sqnr(expected: np.ndarray, given: np.ndarray) -> float:
    noise = np.sum((expected - given) ** 2, dtype=np.float64)
    return float(10 * np.log10(np.sum(expected**2, dtype=np.float64) / max(noise, 1e-30)))


def test_every_engine_computes_what_was_simulated(exported: tuple[str, keras.Model, Path], images: np.ndarray) -> None:
    _, model, path = exported
    simulated = np.asarray(model.predict_on_batch(images))
    for level in ("ORT_DISABLE_ALL", "ORT_ENABLE_ALL"):
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        assert _sqnr(simulated, session.run(None, {"image": images})[0]) > 40, level
    given = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})([images])[0]
    assert _sqnr(simulated, given) > 40
    assert tensor_miss("dead", tensor_errors(model, path, [(images, None)])) is None


def test_every_bias_fits_32_bits(exported: tuple[str, keras.Model, Path]) -> None:
    """Computed in float64 from the file alone."""
    graph = onnx.load(exported[2]).graph
    constants = {tensor.name: numpy_helper.to_array(tensor).astype(np.float64) for tensor in graph.initializer}
    makers = {node.output[0]: node for node in graph.node}
    checked = 0
    for node in graph.node:
        if node.op_type not in {"Conv", "Gemm"} or len(node.input) < 3:
            continue
        pairs = [makers.get(name) for name in node.input]
        if any(pair is None or pair.op_type != "DequantizeLinear" for pair in pairs[:2]):
            continue
        s_x, s_w = (constants[pair.input[1]] for pair in pairs[:2])
        bias = pairs[2]
        b = constants[node.input[2]] if bias is None else constants[bias.input[0]] * constants[bias.input[1]]
        assert np.all(np.abs(b) / (s_x * s_w) < 2**31), node.name
        # Where the weights are nothing, the rounded bias is right to one part in a million.
        kernel = constants[pairs[1].input[0]]
        axis = next(attribute.i for attribute in pairs[1].attribute if attribute.name == "axis")
        dead = ~np.any(kernel, axis=tuple(a for a in range(kernel.ndim) if a != axis))
        error = np.abs(np.round(b / (s_x * s_w)) * s_x * s_w - b)
        assert np.all(error[dead] <= 1e-6 * np.abs(b[dead])), node.name
        checked += 1
    assert checked >= 3


def test_weights_that_are_not_dead_keep_their_scale(exported: tuple[str, keras.Model, Path]) -> None:
    _, model, path = exported
    constants = {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
    kernel = np.abs(np.array(model.get_layer("conv").kernel)).max((0, 1, 2))
    scales = next(value for name, value in constants.items() if name.startswith("conv/kernel") and "scale" in name)
    np.testing.assert_allclose(scales[4:], kernel[4:] / 127, rtol=1e-6)
