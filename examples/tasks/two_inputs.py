"""A model with two inputs, from Python: an image and a few numbers beside it, quantized, fine-tuned and exported.

    python examples/tasks/two_inputs.py work

The brightness of an image and three numbers decide together between two classes. The script trains the float model, and
writes `work/two_inputs.onnx`.
"""

from pathlib import Path

import cyclopts
import keras
import numpy as np
from keras import layers

import keras_qat

SIDE = 24


def make_data(count: int, seed: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Images (count, 24, 24, 3) and numbers (count, 3), float32, and the class of each: 0 or 1."""
    random = np.random.default_rng(seed)
    facts = random.normal(0, 1, (count, 3)).astype(np.float32)
    brightness = random.uniform(0.3, 0.7, (count, 1, 1, 1))
    image = brightness + 0.15 * random.standard_normal((count, SIDE, SIDE, 3))
    label = (8 * (brightness.ravel() - 0.5) + facts @ [0.5, -0.4, 0.3] > 0).astype(np.int32)
    return {"image": np.clip(image, 0, 1).astype(np.float32), "facts": facts}, label


def network() -> keras.Model:
    """Build a network that joins the features of the image with those of the numbers."""
    image, facts = keras.Input((SIDE, SIDE, 3), name="image"), keras.Input((3,), name="facts")
    x = image
    for filters in (16, 32):
        x = layers.Conv2D(filters, 3, strides=2, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.Concatenate()([layers.GlobalAveragePooling2D()(x), layers.Dense(16, "relu")(facts)])
    return keras.Model([image, facts], layers.Dense(2, "softmax", name="risk")(layers.Dense(32, "relu")(x)))


def main(folder: Path, *, samples: int = 2000, epochs: int = 10) -> None:
    """Train the float model, quantize and fine-tune it, and write the file.

    Args:
        folder: where `two_inputs.onnx` goes.
        samples: number of samples.
        epochs: of the float model's training.
    """
    keras.utils.set_random_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    x, y = make_data(samples, seed=0)
    test_x, test_y = make_data(samples // 4, seed=1)
    model = network()
    model.compile(keras.optimizers.Adam(2e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x, y, batch_size=64, epochs=epochs, verbose=2)

    quantized = keras_qat.quantize(model, x, "onnxruntime").model
    cut = samples * 9 // 10
    train = ({name: array[:cut] for name, array in x.items()}, y[:cut])
    selection = ({name: array[cut:] for name, array in x.items()}, y[cut:])
    tuned = keras_qat.fine_tune(quantized, train, selection, keras_qat.Recipe(epochs=2), teacher=model).model
    keras_qat.export_onnx(tuned, folder / "two_inputs.onnx", target="onnxruntime")

    for name, variant in (("float", model), ("INT8", quantized), ("INT8, fine-tuned", tuned)):
        scores = variant.predict(test_x, verbose=0)
        print(f"{name}: {np.mean(scores.argmax(-1) == test_y):.1%} of {len(test_y)} test samples")  # noqa: T201


if __name__ == "__main__":
    cyclopts.run(main)
