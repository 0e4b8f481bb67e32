"""A U-Net that finds shapes: images and masks in folders, a float model, and the commands that quantize it.

    python examples/tasks/segmentation.py work
    keras-qat run --model work/unet.keras --data work/shapes --preprocessing unit:64x96 --run-folder work/run

Each image has discs and squares on a noisy background, and a mask of the same name: 0 background, 1 disc, 2 square.
"""

from pathlib import Path

import cyclopts
import keras
import numpy as np
from keras import layers
from PIL import Image

HEIGHT, WIDTH = 64, 96
CLASSES = ("background", "disc", "square")


def draw(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draw an image, uint8 (64, 96, 3), and its mask, uint8 (64, 96)."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    image = random.uniform(60, 120, 3) + random.normal(0, 15, (HEIGHT, WIDTH, 3))
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    for _ in range(4):
        kind, radius = random.integers(1, len(CLASSES)), random.integers(6, 14)
        y, x = random.integers(0, HEIGHT), random.integers(0, WIDTH)
        distance = np.hypot(rows - y, columns - x) if kind == 1 else np.maximum(abs(rows - y), abs(columns - x))
        inside = distance < radius
        image[inside] = random.uniform(0, 255, 3) + random.normal(0, 15, (int(inside.sum()), 3))
        mask[inside] = kind
    return np.clip(image, 0, 255).astype(np.uint8), mask


def make_data(folder: Path, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Write `images/NAME.png` and `masks/NAME.png`; return all of them."""
    random = np.random.default_rng(0)
    drawn = [draw(random) for _ in range(count)]
    for part, pictures in zip(("images", "masks"), zip(*drawn, strict=True), strict=True):
        (folder / part).mkdir(parents=True, exist_ok=True)
        for i, picture in enumerate(pictures):
            Image.fromarray(picture).save(folder / part / f"{i:04d}.png")
    images, masks = map(np.stack, zip(*drawn, strict=True))
    return images, masks


def unet(width: int = 8, depth: int = 3) -> keras.Model:
    """Build a U-Net with batch norms: `depth` times down by pooling, and up again by transposed convolutions."""

    def block(x: keras.KerasTensor, filters: int) -> keras.KerasTensor:
        for _ in range(2):
            x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
            x = layers.ReLU()(layers.BatchNormalization()(x))
        return x

    x = inputs = keras.Input((HEIGHT, WIDTH, 3), name="image")
    skips = []
    for level in range(depth):
        x = block(x, width << level)
        skips.append(x)
        x = layers.MaxPooling2D()(x)
    x = block(x, width << depth)
    for level in reversed(range(depth)):
        x = layers.Conv2DTranspose(width << level, 2, strides=2)(x)
        x = block(layers.Concatenate()([x, skips[level]]), width << level)
    return keras.Model(inputs, layers.Conv2D(len(CLASSES), 1, activation="softmax", name="mask")(x), name="unet")


def main(folder: Path, *, images: int = 500, epochs: int = 15) -> None:
    """Write the data and the trained float model.

    Args:
        folder: where `shapes/` and `unet.keras` go.
        images: number of images.
        epochs: of training.
    """
    keras.utils.set_random_seed(0)
    x, y = make_data(folder / "shapes", images)
    model = unet()
    model.compile(keras.optimizers.Adam(2e-3), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x / 255.0, y, batch_size=16, epochs=epochs, verbose=2)
    model.save(folder / "unet.keras")


if __name__ == "__main__":
    cyclopts.run(main)
