"""Run a model over labelled images and keep the best classes of each."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from keras_qat.errors import DataError
from keras_qat.progress import track
from keras_qat.runtimes import Runtime

_KEPT = 5


@dataclass(frozen=True)
class Predictions:
    """The best classes of every image, in the order of the data.

    Args:
        classes: int, shape (images, up to 5), best first.
        labels: int, shape (images,).
    """

    classes: np.ndarray
    labels: np.ndarray

    def accuracy(self, k: int = 1) -> float:
        """The share of images whose label is among the best `k` classes, 0 to 1.

        Example:
            >>> Predictions(np.array([[2, 0], [1, 2]]), np.array([0, 1])).accuracy(1)
            0.5
        """
        return float(np.mean(np.any(self.classes[:, :k] == self.labels[:, np.newaxis], axis=1)))

    def agreement(self, other: "Predictions") -> float:
        """The share of images to which both give the same best class, 0 to 1.

        Raises:
            DataError: the two were not made on the same images.
        """
        if not np.array_equal(self.labels, other.labels):
            raise DataError(
                "Only predictions on the same images can be compared. "
                f"Received: {len(self.labels)} and {len(other.labels)} images with different labels."
            )
        return float(np.mean(self.classes[:, 0] == other.classes[:, 0]))


def predict(
    runtime: Runtime,
    batches: Iterable[tuple[np.ndarray, np.ndarray]],
    *,
    description: str = "evaluating",
    total: int = 0,
) -> Predictions:
    """Score all images.

    Args:
        runtime: the model in an engine, with one input and one output.
        batches: (images, labels): float32 (batch, height, width, channels) and int (batch,).
        description: for the progress bar.
        total: number of batches, for the progress bar.

    Raises:
        DataError: there are no images.
    """
    classes, labels = [], []
    for images, truth in track(batches, description, total or None):
        scores = class_scores(runtime, images)
        classes.append(np.argsort(-scores, axis=1, kind="stable")[:, :_KEPT])
        labels.append(np.asarray(truth))
    if not classes:
        raise DataError("There is nothing to evaluate on. Received: 0 images. Give at least one batch.")
    return Predictions(np.concatenate(classes), np.concatenate(labels))


def class_scores(runtime: Runtime, images: np.ndarray) -> np.ndarray:
    """Score a batch, whatever float type the model reads and writes.

    Args:
        runtime: the model in an engine, with one input and one output.
        images: float32, shape (batch, height, width, channels).

    Returns:
        float32, shape (batch, classes).

    Raises:
        DataError: the model has several outputs, or the images don't fit it.
    """
    if len(runtime.outputs) != 1:
        raise DataError(
            "Only a model with one output has class scores. "
            f"Received: outputs {', '.join(spec.name for spec in runtime.outputs)}. Give a classifier."
        )
    (scores,) = runtime.run(as_input(runtime, images))
    return np.asarray(scores, np.float32)


def as_input(runtime: Runtime, images: np.ndarray) -> np.ndarray:
    """The images in the type that the model's first input has: float16 for a model that reads that."""
    return np.asarray(images, runtime.inputs[0].dtype)
