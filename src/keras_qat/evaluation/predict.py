"""Run a model over labelled images and keep the best classes of each, and the scores of the first."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from keras_qat.errors import DataError
from keras_qat.progress import track
from keras_qat.runtimes import Runtime

_KEPT = 5

_SCORED = 256
"""Images whose scores are kept: those of all of ImageNet's validation set are 200 MB."""

_EQUAL_DB = 200.0
"""The SQNR of equal scores."""


@dataclass(frozen=True)
class Predictions:
    """The best classes of every image, in the order of the data.

    Args:
        classes: int, shape (images, up to 5), best first.
        labels: int, shape (images,).
        scores: float32, shape (up to 256 images, classes): of the first images; `None` if they weren't kept.
    """

    classes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray | None = None

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
        self._require_same_images(other)
        return float(np.mean(self.classes[:, 0] == other.classes[:, 0]))

    def sqnr(self, reference: "Predictions") -> float | None:
        """The signal-to-quantization-noise ratio of the kept scores, in dB; `None` where it isn't defined.

            SQNR = 10 log₁₀ (Σ r² / Σ (r - x)²),   at most 200 dB, where r are the reference's scores and x these.

        Raises:
            DataError: the two were not made on the same images.

        Example:
            >>> r, x = (Predictions(np.array([[0]]), np.array([0]), np.array([[s, 0.0]])) for s in (1.0, 0.9))
            >>> round(x.sqnr(r), 3)
            20.0
        """
        self._require_same_images(reference)
        if self.scores is None or reference.scores is None:
            return None
        r, x = reference.scores.astype(np.float64), self.scores.astype(np.float64)
        signal, noise = float(np.sum(r**2)), float(np.sum((r - x) ** 2))
        if not (np.isfinite(noise) and signal > 0):
            return None
        return min(10 * float(np.log10(signal / noise)), _EQUAL_DB) if noise else _EQUAL_DB

    def _require_same_images(self, other: "Predictions") -> None:
        if not np.array_equal(self.labels, other.labels):
            raise DataError(
                "Only predictions on the same images can be compared. "
                f"Received: {len(self.labels)} and {len(other.labels)} images with different labels."
            )


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
    classes: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    kept: list[np.ndarray] = []
    for images, truth in track(batches, description, total or None):
        scores = class_scores(runtime, images)
        classes.append(np.argsort(-scores, axis=1, kind="stable")[:, :_KEPT])
        labels.append(np.asarray(truth))
        room = _SCORED - sum(len(s) for s in kept)
        if room > 0:
            kept.append(scores[:room])
    if not classes:
        raise DataError("There is nothing to evaluate on. Received: 0 images. Give at least one batch.")
    return Predictions(np.concatenate(classes), np.concatenate(labels), np.concatenate(kept))


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
