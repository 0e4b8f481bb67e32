"""Layers of the other families of `keras.applications`, and forward passes that the exporter must not guess."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras.src.applications.convnext import LayerScale
from keras.src.applications.inception_resnet_v2 import CustomScaleLayer

from keras_qat import apply_placement, calibrate, export_onnx, plan, trace
from keras_qat.runtimes import OnnxRuntime
from keras_qat.verify import tensor_errors

layers = keras.layers


def _separable(x: Any) -> Any:
    return layers.SeparableConv2D(6, 3, strides=2, padding="same", depth_multiplier=2, activation="relu", name="sep")(x)


def _scaled_residual(x: Any) -> Any:
    branch = layers.Conv2D(3, 1, name="branch")(x)
    return layers.ReLU()(CustomScaleLayer(0.17, name="block")([x, branch]))


def _normalized(x: Any) -> Any:
    x = layers.Rescaling([0.5, 2.0, 1.0], offset=-0.25)(x)
    return layers.Conv2D(4, 3)(layers.Normalization(mean=[0.1, 0.2, 0.3], variance=[1.0, 2.0, 0.5])(x))


def _convnext(x: Any) -> Any:
    y = layers.LayerNormalization(epsilon=1e-6)(layers.DepthwiseConv2D(3, padding="same")(x))
    y = layers.Dense(3)(layers.Activation("gelu")(layers.Dense(8)(y)))
    return layers.Add()([x, LayerScale(0.3, 3)(y)])


def _cropped(x: Any) -> Any:
    return layers.Conv2D(4, 3)(layers.Cropping2D(((1, 0), (0, 2)))(x))


def _squeezed(x: Any) -> Any:
    """Squeeze and excite without a Reshape: Keras spreads (N, C) over (N, H, W, C)."""
    x = layers.Conv2D(8, 3, padding="same", activation="hard_silu")(x)
    return layers.Multiply()([x, layers.Dense(8, "sigmoid")(layers.GlobalAveragePooling2D()(x))])


def _built(block: Callable[[Any], Any]) -> keras.Model:
    keras.utils.set_random_seed(5)
    x = keras.Input((8, 8, 3), name="image")
    pooled = layers.GlobalAveragePooling2D()(block(x))
    return keras.Model(x, layers.Dense(4, "softmax", name="head")(pooled))


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(5).uniform(-1, 1, (16, 8, 8, 3)).astype("float32")


@pytest.mark.parametrize("block", [_separable, _scaled_residual, _normalized, _convnext, _cropped, _squeezed])
def test_float_file_is_the_model_and_int8_file_the_simulation(
    block: Callable[[Any], Any], images: np.ndarray, tmp_path: Path
) -> None:
    model = _built(block)
    with OnnxRuntime(export_onnx(model, tmp_path / "float.onnx")) as runtime:
        np.testing.assert_allclose(runtime.run(images)[0], model(images), rtol=1e-5, atol=1e-6)
    for target in ("onnxruntime", "openvino", "tensorrt"):
        placement = plan(trace(model).graph, target)
        quantized = apply_placement(model, placement, calibrate(model, placement, [images]))
        path = export_onnx(quantized, tmp_path / f"{target}.onnx", target=target)
        for error in tensor_errors(quantized, path, [(images, None)]):
            assert error.worst <= 1, error
            # The tensors are tiny: one number of a few hundred may stand on a border.
            assert error.differing <= 0.02, error


def test_both_convolutions_of_a_separable_one_are_quantized() -> None:
    placement = plan(trace(_built(_separable)).graph, "onnxruntime")
    assert {w.layer for w in placement.weights if w.spec is not None} == {"sep_depthwise", "sep", "head"}
    assert "sep_depthwise" in placement.specs


class _Standardized(layers.Conv2D):
    """A convolution that computes with other weights than it stores."""

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        return super().convolution_op(inputs, kernel - keras.ops.mean(kernel))


class _Shifted(layers.Layer):
    """Has an activation, and goes below zero behind it."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.activation = keras.activations.relu

    def call(self, x: Any) -> Any:
        return self.activation(x) - 1


def test_subclass_with_a_forward_pass_of_its_own_is_exported_as_what_it_computes(tmp_path: Path) -> None:
    model = _built(_Standardized(4, 3, name="standardized"))
    images = np.random.default_rng(5).uniform(-1, 1, (4, 8, 8, 3)).astype("float32")
    with OnnxRuntime(export_onnx(model, tmp_path / "float.onnx")) as runtime:
        np.testing.assert_allclose(runtime.run(images)[0], model(images), rtol=1e-5, atol=1e-6)


def test_custom_layer_with_an_activation_may_be_negative() -> None:
    placement = plan(trace(_built(lambda x: layers.Conv2D(2, 1)(_Shifted(name="shifted")(x)))).graph, "onnxruntime")
    assert placement.specs["shifted"].signed


def test_layer_norm_is_spelled_out_before_opset_17(tmp_path: Path) -> None:
    model = _built(_convnext)
    images = np.random.default_rng(5).uniform(-1, 1, (4, 8, 8, 3)).astype("float32")
    with OnnxRuntime(export_onnx(model, tmp_path / "model.onnx", opset=13)) as runtime:
        np.testing.assert_allclose(runtime.run(images)[0], model(images), rtol=1e-5, atol=1e-5)
