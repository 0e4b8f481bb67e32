"""The layers whose outputs are compared with the teacher's if the recipe doesn't name them."""

import keras
import numpy as np
import pytest

from keras_qat import apply_placement, plan, trace
from keras_qat.calibration import calibrate
from keras_qat.training import Distillation, Distiller
from keras_qat.training.distiller import common_features


def block(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    y = keras.layers.Conv2D(4, 3, padding="same", use_bias=False, name=f"{name}_conv")(x)
    y = keras.layers.BatchNormalization(name=f"{name}_bn")(y)
    return keras.layers.ReLU(name=f"{name}_out")(keras.layers.Add(name=f"{name}_add")([x, y]))


def residual() -> keras.Model:
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 4))
    x = block(block(image, "one"), "two")
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(image, keras.layers.Dense(3, "softmax", name="head")(x))


def quantized(model: keras.Model) -> keras.Model:
    placement = plan(trace(model).graph, "tensorrt")
    images = np.random.default_rng(0).normal(size=(4, *model.input_shape[1:])).astype("float32")
    return apply_placement(model, placement, calibrate(model, placement, images))


def test_residual_blocks_are_compared_behind_their_activation() -> None:
    assert common_features(residual(), residual()) == ("one_out", "two_out")


def test_a_quantized_student_has_the_same_places() -> None:
    assert common_features(residual(), quantized(residual())) == ("one_out", "two_out")


def test_without_branches_every_kernel_counts_but_not_the_model_s_output() -> None:
    x = image = keras.Input((8, 8, 3))
    for i in range(2):
        x = keras.layers.Conv2D(4, 3, name=f"conv{i}")(x)
        x = keras.layers.ReLU(name=f"relu{i}")(keras.layers.BatchNormalization(name=f"bn{i}")(x))
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    model = keras.Model(image, keras.layers.Dense(2, "softmax", name="head")(x))
    assert common_features(model, model) == ("relu0", "relu1")
    assert common_features(keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, "softmax")]), model) == ()


def test_a_layer_that_is_called_twice_has_no_one_output() -> None:
    image = keras.Input((8, 8, 4))
    shared, conv = keras.layers.ReLU(name="shared"), keras.layers.Conv2D(4, 1, name="conv")
    x = shared(keras.layers.Add(name="first")([image, conv(image)]))
    x = shared(keras.layers.Add(name="second")([x, image]))
    x = keras.layers.ReLU(name="third_out")(keras.layers.Add(name="third")([x, image]))
    model = keras.Model(image, keras.layers.Dense(2, "softmax")(keras.layers.Flatten()(x)))
    assert common_features(model, model) == ("third_out",)


def test_layers_within_a_nested_model_are_left_out() -> None:
    inner = residual()
    image = keras.Input((8, 8, 4))
    model = keras.Model(image, keras.layers.Softmax(name="softmax")(inner(block(image, "outer"))))
    assert common_features(model, model) == ("outer_out",)


@pytest.mark.parametrize("features", ["auto", ()])
def test_the_distiller_adds_their_relative_distance(features: str | tuple[str, ...]) -> None:
    teacher = residual()
    student = quantized(teacher)
    distiller = Distiller(student, teacher, Distillation(features=features))
    distiller.compile("sgd", "sparse_categorical_crossentropy")
    images = np.random.default_rng(1).normal(size=(6, 8, 8, 4)).astype("float32")
    loss = distiller.evaluate(images, np.zeros(6), batch_size=6, verbose=0, return_dict=True)["loss"]

    def outputs(model: keras.Model) -> list[np.ndarray]:
        taps = keras.Model(model.input, [model.output, *(model.get_layer(n).output for n in ("one_out", "two_out"))])
        return [np.asarray(output, np.float64) for output in taps(images)]

    (t, *t_features), (p, *p_features) = outputs(teacher), outputs(student)
    expected = np.mean(np.sum(t * (np.log(t) - np.log(p)), axis=1))
    if features:
        expected += sum(((a - b) ** 2).sum() / (a**2).sum() for a, b in zip(t_features, p_features, strict=True))
    assert loss == pytest.approx(expected, rel=1e-4)
