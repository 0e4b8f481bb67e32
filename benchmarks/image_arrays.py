"""Images as arrays, without TensorFlow: written once by a run's own reader, then batched for `fine_tune`."""

import math
from pathlib import Path

import keras
import numpy as np

SIZE, BATCH = 224, 20
_BGR_MEAN = np.array([103.939, 116.779, 123.68], "float32")


class Batches(keras.utils.PyDataset):
    """Batches of arrays, in an order of their own, with what `fine_tune` asks of a dataset."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, size: int, order: np.ndarray, first: int = 0) -> None:
        super().__init__()
        self.images, self.labels, self.size, self.order, self.first = images, labels, size, order, first

    def __len__(self) -> int:
        return self.cardinality()

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        if index >= len(self):
            raise IndexError(index)
        some = self.order[(self.first + index) * self.size :][: self.size]
        return prepared(self.images[some]), self.labels[some]

    def cardinality(self) -> int:
        """How many batches there are."""
        return math.ceil(len(self.order) / self.size) - self.first

    def skip(self, count: int) -> "Batches":
        """All batches but the first."""
        return Batches(self.images, self.labels, self.size, self.order, self.first + count)


def prepared(pixels: np.ndarray) -> np.ndarray:
    """RGB, uint8 → BGR less ImageNet's mean, float32: what the weights of ResNet v1 were trained on."""
    return pixels[..., ::-1].astype("float32") - _BGR_MEAN


def save_arrays(folder: str, output: Path, seed: int) -> None:
    """Prepare the images of a folder as a run does, rounded to whole pixels. Needs TensorFlow.

    Args:
        folder: of images, as for `keras-qat run --data`.
        output: .npz file; uint8 images and their labels, of each split.
        seed: of the split.
    """
    from keras_qat.data import Preprocessing, load_data

    splits = load_data(folder, Preprocessing("raw", size=SIZE, resize=256, whole_pixels=True), seed)
    found: dict[str, np.ndarray] = {}
    for name in ("train", "selection", "validation"):
        x, y = (np.concatenate(part) for part in zip(*getattr(splits, name).arrays(BATCH), strict=True))
        found[name], found[f"{name}_labels"] = x.astype("uint8"), y
    np.savez(output, **found)
