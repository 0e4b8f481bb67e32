"""A regression on oblong images: the four coordinates of a cross and a ring, from a CSV of paths and numbers.

    python examples/tasks/keypoints.py work
    keras-qat run --model work/keypoints.keras --data work/points.csv --preprocessing unit:48x80 --run-folder work/run

The columns of `points.csv` are the path of an image and the four numbers that the model gives, from 0 to 1.
"""

import csv
from pathlib import Path

import cyclopts
import keras
import numpy as np
from keras import layers
from PIL import Image

HEIGHT, WIDTH = 48, 80
COLUMNS = ("path", "cross_y", "cross_x", "ring_y", "ring_x")


def draw(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw an image, uint8 (48, 80, 3); return it with the two points, float32 (4,)."""
    points = random.uniform(0.15, 0.85, 4).astype(np.float32)
    (y, x), (v, u) = (points.reshape(2, 2) * (HEIGHT, WIDTH)).round()
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    image = random.uniform(40, 100, 3) + random.normal(0, 12, (HEIGHT, WIDTH, 3))
    cross = (np.minimum(abs(rows - y), abs(columns - x)) < 1) & (np.maximum(abs(rows - y), abs(columns - x)) < 6)  # noqa: PLR2004
    ring = abs(np.hypot(rows - v, columns - u) - 5) < 1
    image[cross], image[ring] = random.uniform(170, 255, 3), random.uniform(170, 255, 3)
    return np.clip(image, 0, 255).astype(np.uint8), points


def make_data(folder: Path, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Write `points/NAME.png` and `points.csv`; return all images and points."""
    random = np.random.default_rng(0)
    (folder / "points").mkdir(parents=True, exist_ok=True)
    drawn = [draw(random) for _ in range(count)]
    with (folder / "points.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        for i, (image, points) in enumerate(drawn):
            name = f"points/{i:04d}.png"
            Image.fromarray(image).save(folder / name)
            table.writerow([name, *(f"{number:.5f}" for number in points)])
    images, points = map(np.stack, zip(*drawn, strict=True))
    return images, points


def network() -> keras.Model:
    """Build a network of strided convolutions with four linear outputs."""
    x = inputs = keras.Input((HEIGHT, WIDTH, 3), name="image")
    for filters in (16, 24, 32, 48):
        x = layers.Conv2D(filters, 3, strides=2, padding="same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.Dense(64, "relu")(layers.Flatten()(x))
    return keras.Model(inputs, layers.Dense(4, name="points")(x), name="keypoints")


def main(folder: Path, *, images: int = 1500, epochs: int = 30) -> None:
    """Write the data and the trained float model.

    Args:
        folder: where `points/`, `points.csv` and `keypoints.keras` go.
        images: number of images.
        epochs: of training.
    """
    keras.utils.set_random_seed(0)
    x, y = make_data(folder, images)
    model = network()
    model.compile(keras.optimizers.Adam(2e-3), "mse", metrics=["mae"])
    model.fit(x / 255.0, y, batch_size=32, epochs=epochs, verbose=2)
    model.save(folder / "keypoints.keras")


if __name__ == "__main__":
    cyclopts.run(main)
