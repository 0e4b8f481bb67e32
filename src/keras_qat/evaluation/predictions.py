"""Run a model over images; keep the best classes of every image, and the scores of the first images."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_qat.errors import DataError, require_whole
from keras_qat.evaluation.feeding import arrays_of_inputs, run_batch
from keras_qat.graph import per_class
from keras_qat.progress import track
from keras_qat.runtimes import Runtime
from keras_qat.types import UNLABELLED, ScoreMeaning

SCORED = 256
"""The number of images whose scores are kept. The scores of ImageNet's whole validation set are 200 MB."""

BEST = 5
"""The number of the best classes of an image that are kept."""

_EQUAL_DB = 200.0
"""The SQNR of equal scores."""


@dataclass(frozen=True)
class Predictions:
    """The best classes of every image, in the order of the data.

    Args:
        classes: The best classes of each image, best first, int, shape (images, number of classes kept).
        labels: The labels, int, shape (images,); all -1 if they are unknown.
        scores: The scores of the first images, one for each class, float32, shape (up to 256 images, classes); `None`
            if they were not kept.
    """

    classes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray | None = None

    @property
    def labelled(self) -> bool:
        """Whether the classes of the images are known."""
        return not len(self.labels) or bool(np.any(self.labels != UNLABELLED))

    def accuracy(self, k: int = 1) -> float | None:
        """Return the share of images whose label is among the best `k` classes, 0 to 1; `None` without labels.

        Example:
            >>> classes = np.array([[2, 0], [1, 2]])
            >>> Predictions(classes, np.array([0, 1])).accuracy(1), Predictions(classes, np.array([-1, -1])).accuracy(1)
            (0.5, None)
        """
        return float(np.mean(self.right(k))) if self.labelled else None

    def right(self, k: int = 1) -> np.ndarray:
        """Return whether the label is among the best `k` classes, bool, shape (images,).

        Raises:
            DataError: If the images have no labels.
        """
        if not self.labelled:
            raise DataError(
                f"Without labels nothing is right or wrong. Received: {len(self.labels)} images with the label "
                f"{UNLABELLED}. Compare with another model's predictions by `agreement`, or give labels."
            )
        hits: np.ndarray = np.any(self.classes[:, :k] == self.labels[:, np.newaxis], axis=1)
        return hits

    def agreement(self, other: "Predictions") -> float:
        """Return the share of images for which both have the same best class, 0 to 1.

        Raises:
            DataError: If the two were not made on the same images.
        """
        return float(np.mean(self.agreeing(other)))

    def agreeing(self, other: "Predictions") -> np.ndarray:
        """Return whether both have the same best class, bool, shape (images,).

        Raises:
            DataError: If the two were not made on the same images.
        """
        self._require_same_images(other)
        same: np.ndarray = self.classes[:, 0] == other.classes[:, 0]
        return same

    def sqnr(self, reference: "Predictions") -> float | None:
        """Return the signal-to-quantization-noise ratio of the kept scores in dB; `None` if it is not defined.

            SQNR = 10 log₁₀ (Σ r² / Σ (r - x)²),   at most 200 dB, where r are the reference's scores and x these.

        Raises:
            DataError: If the two were not made on the same images.

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
    batches: Iterable[tuple[Any, np.ndarray]],
    *,
    description: str = "evaluating",
    total: int = 0,
    best: int = BEST,
    meaning: ScoreMeaning = "classes",
) -> Predictions:
    """Score all images.

    Args:
        runtime: The model in an engine, with one output.
        batches: Pairs (x, labels): an array of shape (batch, …) or a tuple of arrays, and int, shape (batch,).
        description: What is being done, for the progress bar.
        total: The number of batches, for the progress bar.
        best: How many of the best classes of each image are kept; all if there are fewer.
        meaning: What the model's scores mean.

    Raises:
        DataError: If there are no images, if they do not fit the model, or if the model has several outputs.
        UserError: If `best` isn't a whole number of at least 1.
    """
    best = require_whole("best", best)
    classes: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    kept: list[np.ndarray] = []
    for images, truth in track(batches, description, total or None):
        scores = class_scores(runtime, images, meaning)
        classes.append(np.argsort(-scores, axis=1, kind="stable")[:, :best])
        labels.append(np.asarray(truth))
        room = SCORED - sum(len(s) for s in kept)
        if room > 0:
            kept.append(scores[:room])
    if not classes:
        raise DataError("There is nothing to evaluate on. Received: 0 images. Give at least one batch.")
    return Predictions(np.concatenate(classes), np.concatenate(labels), np.concatenate(kept))


def class_scores(runtime: Runtime, images: Any, meaning: ScoreMeaning = "classes") -> np.ndarray:
    """Score a batch, whatever types the model reads and writes and whatever batch size it was made for.

    Args:
        runtime: The model in an engine, with one output.
        images: An array of shape (batch, …), or a tuple of arrays for a model with several inputs. A model with a fixed
            batch is given batches of that size, of which the last one is filled up.
        meaning: What the model's scores mean.

    Returns:
        Float32, shape (batch, classes); two classes for a model with a single score.

    Raises:
        DataError: If the model has several outputs, if there are no images, or if they do not fit the model.
    """
    if len(runtime.outputs) != 1:
        raise DataError(
            "Only a model with one output has class scores. "
            f"Received: outputs {', '.join(spec.name for spec in runtime.outputs)}. Give a classifier."
        )
    if not len(arrays_of_inputs(images)[0]):
        raise DataError("There is nothing to score. Received: a batch of 0 images. Give at least one.")
    (scores,) = run_batch(runtime, images)
    by_class: np.ndarray = per_class(np.asarray(scores, np.float32), meaning)
    return by_class
