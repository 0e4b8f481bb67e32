"""Copies of models with code of the user's own, which Keras can't serialize: nothing of it is registered."""

from typing import Any

import keras
import numpy as np
import pytest

from keras_qat import plan, quantize
from keras_qat.calibration import ranges_key
from keras_qat.graph import trace
from keras_qat.training.cloning import clone, fingerprint
from keras_qat.transform import rebuild

layers, ops = keras.layers, keras.ops


class Squares(keras.regularizers.Regularizer):
    """Without `get_config`."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def __call__(self, weights: Any) -> Any:
        return self.factor * ops.sum(ops.square(weights))


class Positional(layers.DepthwiseConv2D):
    """Can't be made from the configuration that it inherits."""

    def __init__(self, size: int) -> None:
        super().__init__(size, name="depthwise")


class Applies(layers.Layer):
    """Has a function as its argument, and no `get_config`."""

    def __init__(self, function: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.function, self.dense = function, layers.Dense(4)

    def build(self, shape: Any) -> None:
        self.dense.build(shape)

    def call(self, x: Any) -> Any:
        return self.function(self.dense(x))


def positive(weights: Any) -> Any:
    return ops.relu(weights)


@pytest.fixture(scope="module")
def model() -> keras.Model:
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(
        4,
        3,
        kernel_regularizer=Squares(0.1),
        bias_constraint=positive,
        activation=lambda x: ops.tanh(x) * 2,
        name="conv",
    )(image)
    x = Applies(ops.relu, name="applies")(Positional(3)(layers.Lambda(lambda x: x * 2, name="lambda")(x)))
    return keras.Model(image, layers.Dense(2, "softmax", name="head")(layers.GlobalAveragePooling2D()(x)))


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(8, 8, 8, 3)).astype("float32")


@pytest.mark.parametrize("copied", [clone, lambda model: rebuild(trace(model))], ids=["clone", "rebuild"])
def test_a_copy_computes_the_same_and_shares_no_weight(copied: Any, model: keras.Model, images: np.ndarray) -> None:
    expected = np.asarray(model(images))
    copy = copied(model)
    np.testing.assert_allclose(np.asarray(copy(images)), expected, rtol=1e-5, atol=1e-6)
    assert not {id(weight) for weight in copy.weights} & {id(weight) for weight in model.weights}
    for weight in copy.weights:
        weight.assign(weight + 1.0)
    np.testing.assert_array_equal(np.asarray(model(images)), expected)


def test_functions_and_objects_are_kept(model: keras.Model) -> None:
    conv = clone(model).get_layer("conv")
    assert conv.kernel_regularizer.factor == 0.1
    assert conv.bias_constraint is positive


def test_it_quantizes_and_its_quantized_model_can_be_copied(model: keras.Model, images: np.ndarray) -> None:
    quantized = quantize(model, images, "onnxruntime").model
    copy = clone(quantized)
    np.testing.assert_array_equal(np.asarray(copy(images)), np.asarray(quantized(images)))
    assert fingerprint(copy) == fingerprint(quantized)


def test_the_ranges_of_what_cannot_be_described_are_never_found_again(model: keras.Model) -> None:
    placement = plan(trace(model).graph, "onnxruntime")
    keys = [ranges_key(model, placement, "images", "mse", 8) for _ in range(2)]
    assert keys[0] != keys[1]
