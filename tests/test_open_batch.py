"""Layers that compute with the number of images, which is open: the file computes what Keras does for any number."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnxruntime
import pytest

from keras_qat import export_onnx, quantize
from keras_qat.errors import UnsupportedModelError
from keras_qat.graph import trace
from keras_qat.transform import rebuild

layers, ops = keras.layers, keras.ops

SHAPE = (8, 8, 3)


class Token(layers.Layer):
    """Joins a token to the rows of each image, as vision transformers do."""

    def build(self, shape: Any) -> None:
        self.token = self.add_weight(shape=(1, 1, shape[-1]), initializer="random_normal", name="token")

    def call(self, x: Any) -> Any:
        batch, height, width, channels = ops.shape(x)
        token = ops.tile(self.token, (batch, 1, 1))
        return ops.concatenate([token, ops.reshape(x, (batch, height * width, channels))], axis=1)

    def compute_output_shape(self, shape: Any) -> Any:
        return (shape[0], shape[1] * shape[2] + 1, shape[3])


class Constants(layers.Layer):
    """Constants with a row for each image, or for each row of each image, and a broadcast."""

    def call(self, x: Any) -> Any:
        batch, height, width, channels = ops.shape(x)
        padded = ops.concatenate([x, ops.zeros((batch, height, 1, channels))], axis=2)
        rows = ops.reshape(padded, (batch * height, width + 1, channels))
        rows = ops.concatenate([ops.ones((batch * height, 1, channels)) * 0.5, rows], axis=1)
        wide = ops.broadcast_to(ops.reshape(rows, (batch, height, 1, -1)), (batch, height, 2, (width + 2) * channels))
        return ops.reshape(wide, (-1, height, 2 * (width + 2), channels))


class Window(layers.Layer):
    """Adds a constant for each window of an image to a batch of windows, whose number it divides."""

    def __init__(self, windows: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.windows = windows
        self.dense = layers.Dense(3, name="dense")

    def build(self, shape: Any) -> None:
        self.dense.build(shape)

    def call(self, x: Any, shift: Any) -> Any:
        count, size, channels = ops.shape(x)
        y = ops.reshape(self.dense(x), (count // self.windows, self.windows, size, channels)) + shift
        return ops.reshape(y, (-1, size, channels))


class Windows(layers.Layer):
    """Parts images into windows and joins them again, as Swin does."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.window = Window(4, name="window")

    def build(self, shape: Any) -> None:
        self.window.build((None, 16, shape[-1]))

    def call(self, x: Any) -> Any:
        batch, height, width, channels = ops.shape(x)
        parted = ops.transpose(ops.reshape(x, (batch, 2, height // 2, 2, width // 2, channels)), (0, 1, 3, 2, 4, 5))
        windows = ops.reshape(parted, (-1, height // 2 * width // 2, channels))
        windows = self.window(windows, shift=ops.reshape(ops.arange(4, dtype="float32"), (4, 1, 1)))
        count = ops.shape(windows)[0] // 4
        joined = ops.reshape(windows, (count, 2, 2, height // 2, width // 2, channels))
        return ops.reshape(ops.transpose(joined, (0, 1, 3, 2, 4, 5)), (count, height, width, channels))


class Beside(layers.Layer):
    """Gives `None` and a constant beside a tensor, and uses a part that gives `None`."""

    def __init__(self, part: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.part = part

    def call(self, x: Any) -> Any:
        if self.part is None:
            return x * 2, None
        y, scores = self.part(x)
        return y if scores is None else x, (), ops.ones((3,))


def network(body: Callable[[Any], Any]) -> keras.Model:
    keras.utils.set_random_seed(0)
    image = keras.Input(SHAPE, name="image")
    return keras.Model(image, layers.Dense(2, name="head")(body(layers.Conv2D(3, 3, padding="same")(image))))


def parted_before(x: Any) -> Any:
    """The windows are made by operations of the model, so its layer reads four rows for each image."""
    windows = Window(4, name="window")(ops.reshape(x, (-1, 16, 3)), shift=np.ones((4, 1, 1), "float32"))
    return ops.reshape(windows, (-1, 8, 8, 3))


BODIES: dict[str, Callable[[Any], Any]] = {
    "a class token": Token(name="token"),
    "constants": Constants(name="constants"),
    "windows": Windows(name="windows"),
    "windows of the model": parted_before,
    "nothing beside a tensor": lambda x: Beside(Beside(name="part"), name="beside")(x)[0],
}


def images(count: int) -> np.ndarray:
    return np.random.default_rng(count).normal(size=(count, *SHAPE)).astype("float32")


def run(path: Path, x: np.ndarray) -> np.ndarray:
    return np.asarray(onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"image": x})[0])


@pytest.mark.parametrize("name", BODIES)
def test_the_file_computes_what_keras_computes_for_any_number_of_images(name: str, tmp_path: Path) -> None:
    model = network(BODIES[name])
    export_onnx(model, tmp_path / "float.onnx")
    copied = rebuild(trace(model))
    for count in (1, 4, 6):
        expected = np.asarray(model(images(count)))
        np.testing.assert_allclose(run(tmp_path / "float.onnx", images(count)), expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(np.asarray(copied(images(count))), expected, rtol=1e-4, atol=1e-5)


def test_a_quantized_model_is_saved_and_takes_any_number_of_images(tmp_path: Path) -> None:
    model = network(lambda x: Token(name="token")(Windows(name="windows")(x)))
    quantized = quantize(model, images(8), "onnxruntime").model
    quantized.save(tmp_path / "int8.keras")
    loaded: Any = keras.saving.load_model(tmp_path / "int8.keras")
    export_onnx(loaded, tmp_path / "int8.onnx", target="onnxruntime")
    for count in (1, 3):
        simulated = np.asarray(quantized(images(count)))
        np.testing.assert_allclose(np.asarray(loaded(images(count))), simulated, atol=1e-5)
        found = run(tmp_path / "int8.onnx", images(count))
        np.testing.assert_allclose(found, simulated, atol=0.05 * np.abs(simulated).max())


class Numbered(layers.Layer):
    """Tells the images of a batch apart."""

    def call(self, x: Any) -> Any:
        numbers = ops.cast(ops.arange(ops.shape(x)[0]), "float32")
        return x + ops.reshape(numbers, (-1, 1, 1, 1))


class Halved(layers.Layer):
    """Does something else with a single image."""

    def call(self, x: Any) -> Any:
        return ops.relu(x) if ops.shape(x)[0] // 6 else ops.sigmoid(x)

    def compute_output_shape(self, shape: Any) -> Any:
        return shape


@pytest.mark.parametrize(
    ("kind", "why"), [(Numbered, "differ from image to image"), (Halved, "calls other layers or operations")]
)
def test_what_depends_otherwise_on_the_number_of_images_is_refused(
    kind: type[layers.Layer], why: str, tmp_path: Path
) -> None:
    with pytest.raises(UnsupportedModelError, match=rf"'odd'.*keras\.Input\(batch_shape=\(1.*{why}"):
        export_onnx(network(kind(name="odd")), tmp_path / "float.onnx")


def test_an_output_without_the_inputs_is_refused() -> None:
    image = keras.Input(SHAPE, name="image")
    outputs = Beside(Beside(name="part"), name="beside")(image)
    with pytest.raises(UnsupportedModelError, match=r"does not depend on its inputs.*a constant"):
        trace(keras.Model(image, [outputs[0], outputs[2]]))
