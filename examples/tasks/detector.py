"""A detector with four outputs, scores and boxes on two levels of a feature pyramid, as RetinaNet has them.

    python examples/tasks/detector.py work
    keras-qat run --model work/detector.keras --data work/scenes --preprocessing unit:64x96 --run-folder work/run

`scenes/` is a folder of images without labels: the float model is the teacher. Boxes are decoded, and overlapping ones
removed, outside the file: `boxes_fine` and `boxes_coarse` are offsets from the middle of each cell and the logarithms
of height and width, all in units of the cell.
"""

from pathlib import Path

import cyclopts
import keras
import numpy as np
from keras import layers, ops
from PIL import Image

HEIGHT, WIDTH, CLASSES = 64, 96, 3
STRIDES = {"fine": 8, "coarse": 16}
_SPLIT = 22
"""The side in pixels from which a box belongs to the coarse level."""


def draw(random: np.random.Generator) -> tuple[np.ndarray, list[tuple[int, np.ndarray]]]:
    """Draw an image, uint8 (64, 96, 3); return it with the class and box (y, x, height, width) of each object."""
    image = random.uniform(50, 110, 3) + random.normal(0, 12, (HEIGHT, WIDTH, 3))
    objects = []
    for _ in range(random.integers(1, 4)):
        kind, height, width = random.integers(CLASSES), *random.integers(10, 34, 2)
        y, x = random.uniform(height / 2, HEIGHT - height / 2), random.uniform(width / 2, WIDTH - width / 2)
        color = np.full(3, 60.0)
        color[kind] = random.uniform(180, 255)
        top, left = int(y - height / 2), int(x - width / 2)
        image[top : top + height, left : left + width] = color + random.normal(0, 12, (height, width, 3))
        objects.append((int(kind), np.array([y, x, height, width])))
    return np.clip(image, 0, 255).astype(np.uint8), objects


def targets(objects: list[tuple[int, np.ndarray]], level: str) -> np.ndarray:
    """What the level should give in each cell: scores, box, and whether it has an object, (rows, columns, 8)."""
    stride = STRIDES[level]
    cells = np.zeros((HEIGHT // stride, WIDTH // stride, CLASSES + 5), np.float32)
    for kind, (y, x, height, width) in objects:
        if (max(height, width) >= _SPLIT) == (level == "coarse"):
            row, column = int(y // stride), int(x // stride)
            offsets = [
                y / stride - row - 0.5,
                x / stride - column - 0.5,
                np.log(height / stride),
                np.log(width / stride),
            ]
            cells[row, column] = [*np.eye(CLASSES)[kind], *offsets, 1]
    return cells


def detector() -> keras.Model:
    """Build a small backbone, a pyramid of two levels, and heads that both levels share."""

    def convolve(x: keras.KerasTensor, filters: int, strides: int = 1) -> keras.KerasTensor:
        x = layers.Conv2D(filters, 3, strides=strides, padding="same", use_bias=False)(x)
        return layers.ReLU()(layers.BatchNormalization()(x))

    x = inputs = keras.Input((HEIGHT, WIDTH, 3), name="image")
    x = convolve(convolve(x, 16, 2), 24, 2)
    fine = convolve(convolve(x, 32, 2), 32)
    coarse = convolve(convolve(fine, 48, 2), 48)
    reduced = layers.Conv2D(32, 1)(coarse)
    levels = {"coarse": reduced, "fine": layers.Add()([layers.Conv2D(32, 1)(fine), layers.UpSampling2D()(reduced)])}
    tower = layers.Conv2D(32, 3, padding="same", activation="relu", name="tower")
    classify = layers.Conv2D(
        CLASSES,
        3,
        padding="same",
        activation="sigmoid",
        bias_initializer=keras.initializers.Constant(-3),
        name="classify",
    )
    locate = layers.Conv2D(4, 3, padding="same", name="locate")
    outputs = {}
    for level, top in levels.items():
        features = tower(top)
        outputs[f"scores_{level}"] = layers.Identity(name=f"scores_{level}")(classify(features))
        outputs[f"boxes_{level}"] = layers.Identity(name=f"boxes_{level}")(locate(features))
    return keras.Model(inputs, outputs, name="detector")


def score_loss(truth: keras.KerasTensor, scores: keras.KerasTensor) -> keras.KerasTensor:
    """The focal cross-entropy of the scores with the first entries of `targets`."""
    return ops.sum(keras.losses.binary_focal_crossentropy(truth[..., :CLASSES], scores, gamma=2.0))


def box_loss(truth: keras.KerasTensor, boxes: keras.KerasTensor) -> keras.KerasTensor:
    """The absolute error of the boxes in the cells that have an object."""
    return ops.sum(truth[..., -1:] * ops.abs(truth[..., CLASSES:-1] - boxes)) / (ops.sum(truth[..., -1]) + 1)


def main(folder: Path, *, images: int = 500, epochs: int = 15) -> None:
    """Write the data and the trained float model.

    Args:
        folder: where `scenes/` and `detector.keras` go.
        images: number of images.
        epochs: of training.
    """
    keras.utils.set_random_seed(0)
    random = np.random.default_rng(0)
    (folder / "scenes").mkdir(parents=True, exist_ok=True)
    drawn = [draw(random) for _ in range(images)]
    for i, (image, _) in enumerate(drawn):
        Image.fromarray(image).save(folder / "scenes" / f"{i:04d}.png")
    x = np.stack([image for image, _ in drawn]) / 255.0
    model = detector()
    y = {level: np.stack([targets(objects, level) for _, objects in drawn]) for level in STRIDES}
    losses = {name: score_loss if name.startswith("scores") else box_loss for name in model.output_names}
    model.compile(keras.optimizers.Adam(2e-3), losses)
    model.fit(
        x, {name: y[name.rpartition("_")[2]] for name in model.output_names}, batch_size=16, epochs=epochs, verbose=2
    )
    model.save(folder / "detector.keras")


if __name__ == "__main__":
    cyclopts.run(main)
