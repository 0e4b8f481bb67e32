"""Convolutions with an activation of their own that engines run outside: the same numbers, and integers around it."""

from collections import Counter
from pathlib import Path

import keras
import numpy as np
import onnx
import onnxruntime
import pytest

from keras_qat import quantize, trace
from keras_qat.export import export_onnx
from keras_qat.training import Distillation, Distiller
from keras_qat.training.distiller import common_features
from keras_qat.transform import copy_layer, rebuild
from keras_qat.verify import tensor_errors, verify_file

layers = keras.layers
IMAGES = np.random.default_rng(0).normal(0, 1, (8, 12, 12, 3)).astype("float32")


@pytest.fixture(scope="module")
def model() -> keras.Model:
    """One layer is called twice, one is separable, one has its activation as a layer, one is frozen."""
    keras.utils.set_random_seed(0)
    image = keras.Input((12, 12, 3), name="image")
    shared = layers.Conv2D(3, 3, padding="same", activation="swish", name="shared", bias_initializer="normal")
    x = layers.SeparableConv2D(6, 3, activation="gelu", name="separable")(shared(shared(image)))
    x = layers.Conv2D(6, 3, activation=layers.LeakyReLU(0.2, name="leaky"), name="conv")(x)
    x = layers.DepthwiseConv2D(3, activation="sigmoid", name="depth", trainable=False)(x)
    return keras.Model(image, layers.Dense(4, "softmax", name="head")(layers.Flatten()(x)))


def test_the_model_as_read_computes_the_same(model: keras.Model) -> None:
    flat = rebuild(trace(model), copy_layer, lambda _, tensor: tensor)
    np.testing.assert_allclose(flat(IMAGES), model(IMAGES), atol=1e-6)
    assert [node.name for node in trace(model).graph.nodes if node.layer.startswith("shared")] == [
        *("shared", "shared_activation", "shared#2", "shared_activation#2"),
    ]
    assert not flat.get_layer("depth").trainable
    assert flat.get_layer("conv").trainable
    assert flat.count_params() == model.count_params()


def test_reading_a_model_leaves_its_activation_layers_alone() -> None:
    keras.utils.set_random_seed(0)
    leaky = layers.LeakyReLU(0.2, name="leaky")
    conv = layers.Conv2D(4, 3, activation=leaky, name="conv")
    found = trace(keras.Sequential([keras.Input((12, 12, 3)), conv]))
    assert [node.layer for node in found.graph.nodes][-2:] == ["conv", "leaky"]
    assert not {id(found.calls[node.name].operation) for node in found.graph.nodes} & {id(conv), id(leaky)}


def test_onnx_runtime_convolves_in_integers(model: keras.Model, tmp_path: Path) -> None:
    quantized = quantize(model, IMAGES, "onnxruntime", method="minmax")
    path = export_onnx(quantized.model, tmp_path / "ptq.onnx", target="onnxruntime")
    assert verify_file(path, quantized.placement, model=quantized.model).findings == ()
    assert max(error.worst for error in tensor_errors(quantized.model, path, [(IMAGES, None)])) <= 1
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    operators = Counter(node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node)
    assert operators["QLinearConv"] == 6
    assert not operators.keys() & {"Conv", "FusedConv"}


def test_features_of_student_and_teacher_are_the_same_tensors(model: keras.Model) -> None:
    """The name of the layer is the convolution's in the quantized model, and its activation's result in the float."""
    quantized = quantize(model, IMAGES, "tensorrt", method="minmax", bias_correction=False).model
    for names in ("auto", ("conv", "depth")):
        distiller = Distiller(quantized, model, Distillation(features=names))
        taught, learned = (part(IMAGES, training=False) for part in (distiller.teacher, distiller.student))
        assert taught.keys() == learned.keys()
        assert len(taught) > 1
        for name, tensor in taught.items():
            error = np.square(np.asarray(tensor) - np.asarray(learned[name])).mean()
            assert error < 0.01 * np.square(np.asarray(tensor)).mean(), name


def test_features_of_a_model_beside_itself(model: keras.Model) -> None:
    """A student that wasn't quantized has the teacher's own layers."""
    distiller = Distiller(keras.models.clone_model(model), model, Distillation(features=("conv",)))
    np.testing.assert_allclose(
        distiller.teacher(IMAGES)["conv"], keras.Model(model.inputs[0], model.get_layer("conv").output)(IMAGES)
    )


def test_features_of_a_network_without_branches_that_was_not_quantized() -> None:
    """Its layers are those of its own, so the convolution with its activation is one place."""
    image = keras.Input((12, 12, 3), name="image")
    x = layers.Conv2D(3, 3, activation="swish", name="conv")(image)
    model = keras.Model(image, layers.Dense(4, "softmax", name="head")(layers.Flatten()(x)))
    assert common_features(model, keras.models.clone_model(model)) == ("conv",)
