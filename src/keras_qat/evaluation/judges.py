"""One judge for each kind of task: what it keeps of each batch, and the figures that it makes of that.

A judge sees the outputs of all models for a batch at once, since models are compared image by image. Nothing that it
keeps grows with the number of images but a few numbers for each image.
"""

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_qat.errors import DataError
from keras_qat.evaluation.comparison import Proportion, difference_interval, proportion
from keras_qat.evaluation.output_scores import Figure, OutputScores, decibels, mean_figure
from keras_qat.evaluation.predictions import BEST, SCORED, Predictions
from keras_qat.graph import best_class, classes_of, per_class
from keras_qat.types import UNLABELLED, OutputTask, ScoreMeaning, TaskKind

Pair = tuple[str, str | None]
"""A model, and the one that it is compared with."""

NO_CLASS = 255
"""The label of a position without a class, in masks of unsigned bytes. With more classes it is one of them."""

_SHARE = (0.0, 1.0)


class TaskJudge(ABC):
    """Judges one output of several models.

    Args:
        task: What the output says.
        pairs: Which models are compared.
    """

    def __init__(self, task: OutputTask, pairs: Sequence[Pair]) -> None:
        self.task = task
        self.pairs = [(name, other) for name, other in pairs if other is not None]
        self.images = 0
        self.labelled = False

    def read(self, output: np.ndarray) -> np.ndarray:
        """Return what is kept of an output until those of all models are there, such as its best classes.

        Args:
            output: The output of one model for a batch, shape (batch, …).
        """
        return output

    def add(self, outputs: Mapping[str, np.ndarray], labels: np.ndarray | None) -> None:
        """Add a batch.

        Args:
            outputs: What `read` returned for each model.
            labels: The labels, shape (batch, …); `None` if they are unknown.

        Raises:
            DataError: If the labels don't fit the output.
        """
        self.images += len(next(iter(outputs.values())))
        self.labelled |= labels is not None
        self._add(outputs, labels)

    def scores(self, name: str, other: str | None) -> OutputScores:
        """Return the figures of a model, compared with another one."""
        figures = self._against_labels(name) if self.labelled else {}
        differences = {}
        if other is not None:
            differences = self._differences(name, other) if self.labelled else {}
            figures = {**figures, **self._against_model(name, other)}
        return OutputScores(self.task.output, self.task.kind, self.images, figures, differences)

    @property
    def meaning(self) -> ScoreMeaning:
        """What the scores mean; a task with classes has a meaning."""
        return self.task.scores or "classes"

    @abstractmethod
    def _add(self, outputs: Mapping[str, np.ndarray], labels: np.ndarray | None) -> None:
        """Implement `add`."""

    @abstractmethod
    def _against_labels(self, name: str) -> dict[str, Figure]:
        """Return the figures that need labels."""

    @abstractmethod
    def _against_model(self, name: str, other: str) -> dict[str, Figure]:
        """Return the figures that compare two models."""

    @abstractmethod
    def _differences(self, name: str, other: str) -> dict[str, Figure]:
        """Return the differences of figures that need labels."""


class ClassJudge(TaskJudge):
    """Judges classes of whole inputs."""

    def __init__(self, task: OutputTask, pairs: Sequence[Pair]) -> None:
        super().__init__(task, pairs)
        self._classes: dict[str, list[np.ndarray]] = defaultdict(list)
        self._scores: dict[str, list[np.ndarray]] = defaultdict(list)
        self._labels: list[np.ndarray] = []

    def read(self, output: np.ndarray) -> np.ndarray:
        """Return the scores, one for each class."""
        return np.asarray(per_class(np.asarray(output, np.float32), self.meaning))

    def _add(self, outputs: Mapping[str, np.ndarray], labels: np.ndarray | None) -> None:
        room = max(SCORED - sum(map(len, self._labels)), 0)
        self._labels.append(self._truth(labels, next(iter(outputs.values()))))
        for name, scores in outputs.items():
            self._classes[name].append(np.argsort(-scores, axis=1, kind="stable")[:, :BEST])
            self._scores[name].append(scores[:room])

    def _truth(self, labels: np.ndarray | None, scores: np.ndarray) -> np.ndarray:
        if labels is None:
            return np.full(len(scores), UNLABELLED)
        require_classes_of(labels, (len(scores),), scores.shape[1], self.task.output, {UNLABELLED})
        return labels.reshape(-1)

    def predictions(self, name: str) -> Predictions:
        """Return the best classes of all images according to one model."""
        classes, scores = self._classes[name], self._scores[name]
        return Predictions(np.concatenate(classes), np.concatenate(self._labels), np.concatenate(scores))

    def _against_labels(self, name: str) -> dict[str, Figure]:
        made = self.predictions(name)
        return {f"top{k}": _share(int(np.sum(made.right(k))), self.images) for k in (1, BEST)}

    def _against_model(self, name: str, other: str) -> dict[str, Figure]:
        first, second = self.predictions(name), self.predictions(other)
        agreeing = int(np.sum(first.agreeing(second)))
        return {"agreement": _share(agreeing, self.images), "sqnr": Figure(first.sqnr(second))}

    def _differences(self, name: str, other: str) -> dict[str, Figure]:
        x, y = self.predictions(name).right(), self.predictions(other).right()
        only_first, only_second = int(np.sum(x & ~y)), int(np.sum(y & ~x))
        interval = difference_interval(only_first, only_second, self.images)
        return {"top1": Figure((only_first - only_second) / self.images, *interval)}


def _share(count: int, images: int) -> Figure:
    share: Proportion = proportion(count, images)
    return Figure(share.value, share.low, share.high)


class PositionJudge(TaskJudge):
    """Judges a class for each position."""

    def __init__(self, task: OutputTask, pairs: Sequence[Pair]) -> None:
        super().__init__(task, pairs)
        self._number = 0
        self._counts: dict[Any, Any] = defaultdict(int)
        self._image_iou: dict[str, list[float]] = defaultdict(list)
        self._agreement: dict[tuple[str, str], list[float]] = defaultdict(list)

    def read(self, output: np.ndarray) -> np.ndarray:
        """Return the best class of each position, which takes less memory than the scores of all classes."""
        self._number = classes_of(output.shape[-1], self.meaning)
        return np.asarray(best_class(output, self.meaning)).astype(np.min_scalar_type(self._number))

    def _add(self, outputs: Mapping[str, np.ndarray], labels: np.ndarray | None) -> None:
        maps, classes = outputs, self._number
        if labels is not None:
            shape = next(iter(maps.values())).shape
            without = {UNLABELLED, NO_CLASS} if classes <= NO_CLASS else {UNLABELLED}
            require_classes_of(labels, shape, classes, self.task.output, without)
            truth = labels.reshape(shape).astype(np.int64)
            truth = np.where(np.isin(truth, list(without)), UNLABELLED, truth)
            for name, made in maps.items():
                for y, p in zip(truth, made, strict=True):
                    counts = confusion(y, p, classes)
                    self._counts[name] += counts
                    self._image_iou[name].append(mean_iou(counts))
        for pair in self.pairs:
            for y, p in zip(maps[pair[1]], maps[pair[0]], strict=True):
                self._counts[pair] += confusion(y, p, classes)
                self._agreement[pair].append(float(np.mean(y == p)))

    def _against_labels(self, name: str) -> dict[str, Figure]:
        counts = self._counts[name]
        counted = int(counts.sum())
        return {
            "mean_iou": _known(mean_iou(counts)),
            "image_iou": mean_figure(np.array(self._image_iou[name]), _SHARE),
            "pixel_accuracy": Figure(int(np.trace(counts)) / counted if counted else None),
        }

    def _against_model(self, name: str, other: str) -> dict[str, Figure]:
        pair = (name, other)
        return {
            "agreement": mean_figure(np.array(self._agreement[pair]), _SHARE),
            "model_iou": _known(mean_iou(self._counts[pair])),
        }

    def _differences(self, name: str, other: str) -> dict[str, Figure]:
        return {"image_iou": mean_figure(np.subtract(self._image_iou[name], self._image_iou[other]))}


def confusion(labels: np.ndarray, classes: np.ndarray, count: int) -> np.ndarray:
    """Return how many positions have each label and each class.

    Args:
        labels: Integers of any shape; those of -1 aren't counted.
        classes: Integers of the same shape.
        count: The number of classes.

    Returns:
        int64, shape (count, count): a row for each label, a column for each class.

    Example:
        >>> confusion(np.array([0, 1, 1, -1]), np.array([0, 0, 1, 1]), 2).tolist()
        [[1, 0], [1, 1]]
    """
    counted = labels >= 0
    pairs = count * labels[counted].astype(np.int64) + classes[counted]
    return np.bincount(pairs, minlength=count**2).reshape(count, count)


def mean_iou(counts: np.ndarray) -> float:
    """Return the mean over the classes of TP / (TP + FP + FN), without classes that nothing has; NaN if all are such.

    Args:
        counts: From `confusion`.

    Example:
        >>> round(mean_iou(np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0]])), 3)
        0.5
    """
    hits = np.diag(counts)
    union = counts.sum(0) + counts.sum(1) - hits
    present = union > 0
    return float(np.mean(hits[present] / union[present])) if present.any() else float("nan")


class NumberJudge(TaskJudge):
    """Judges numbers of any other meaning."""

    def __init__(self, task: OutputTask, pairs: Sequence[Pair]) -> None:
        super().__init__(task, pairs)
        self._absolute: dict[Any, list[float]] = defaultdict(list)
        self._squared: dict[str, list[float]] = defaultdict(list)
        self._cosine: dict[Any, list[float]] = defaultdict(list)
        self._largest: dict[Any, float] = defaultdict(float)
        self._powers: dict[Any, np.ndarray] = defaultdict(lambda: np.zeros(2))

    def _add(self, outputs: Mapping[str, np.ndarray], labels: np.ndarray | None) -> None:
        first = next(iter(outputs.values()))
        truth = None if labels is None else self._truth(labels, first.shape)
        with np.errstate(invalid="ignore", over="ignore"):
            # Image by image: outputs may be as large as images, and in float64 twice that.
            for i in range(len(first)):
                x = {name: np.asarray(output[i], np.float64).ravel() for name, output in outputs.items()}
                for name in x if truth is not None else ():
                    errors = np.abs(x[name] - truth[i])  # type: ignore[index]
                    self._absolute[name].append(_defined(np.mean(errors)))
                    self._squared[name].append(_defined(np.mean(errors**2)))
                for pair in self.pairs:
                    self._compare(pair, x[pair[0]], x[pair[1]])

    def _compare(self, pair: tuple[str, str], x: np.ndarray, r: np.ndarray) -> None:
        errors = np.abs(x - r)
        self._absolute[pair].append(_defined(np.mean(errors)))
        self._largest[pair] = max(self._largest[pair], _defined(np.max(errors)))
        self._powers[pair] += (np.sum(r**2), np.sum(errors**2))
        lengths = float(np.linalg.norm(x) * np.linalg.norm(r))
        # Two zero vectors are alike, and one isn't like any other.
        cosine = np.sum(x * r) / lengths if lengths else float(np.array_equal(x, r))
        self._cosine[pair].append(_defined(cosine))

    def _truth(self, labels: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        if len(labels) != shape[0] or labels.size != int(np.prod(shape)) or labels.dtype.kind not in "biuf":
            raise DataError(
                f"The labels don't fit the output {self.task.output!r}, which has shape {shape}. Received: "
                f"{labels.dtype} labels of shape {labels.shape}. Give as many numbers for each image."
            )
        rows = labels.astype(np.float64).reshape(len(labels), -1)
        if not np.isfinite(rows).all():
            raise DataError(
                f"A label of the output {self.task.output!r} is not finite. Received: "
                f"{rows[~np.isfinite(rows)].flat[0]}. Correct it, or leave that image out."
            )
        return rows

    def _against_labels(self, name: str) -> dict[str, Figure]:
        squared = mean_figure(np.array(self._squared[name])).value
        return {
            "mae": mean_figure(np.array(self._absolute[name]), (0.0, np.inf)),
            "rmse": Figure(None if squared is None else float(np.sqrt(squared))),
        }

    def _against_model(self, name: str, other: str) -> dict[str, Figure]:
        pair = (name, other)
        return {
            "sqnr": Figure(decibels(*map(float, self._powers[pair]))),
            "mean_error": mean_figure(np.array(self._absolute[pair]), (0.0, np.inf)),
            "largest_error": _known(self._largest[pair]),
            "cosine": mean_figure(np.array(self._cosine[pair]), (-1.0, 1.0)),
        }

    def _differences(self, name: str, other: str) -> dict[str, Figure]:
        pairs = zip(self._absolute[name], self._absolute[other], strict=True)
        return {"mae": mean_figure(np.array([_defined(a - b) for a, b in pairs]))}


JUDGES: Mapping[TaskKind, type[TaskJudge]] = {
    "classification": ClassJudge,
    "segmentation": PositionJudge,
    "regression": NumberJudge,
}


def require_classes_of(
    labels: np.ndarray, shape: tuple[int, ...], classes: int, output: str, without: set[int]
) -> None:
    """Refuse labels that aren't numbers of classes, one for each image or position.

    Args:
        labels: The labels of a batch.
        shape: The shape that they must have; a last axis of one number more is allowed.
        classes: The number of classes of the output.
        output: Its name.
        without: Labels that stand for no class.

    Raises:
        DataError: If the type or the shape is wrong, or a label is out of range.

    Example:
        >>> require_classes_of(np.array([0, 3]), (2,), 3, "scores", {-1})
        Traceback (most recent call last):
        keras_qat.errors.DataError: A label has no class in the output 'scores', which tells 3 classes apart. Received:
        a label of 3. Number the classes from 0 to 2; -1 stands for no class.
    """
    if labels.dtype.kind not in "biu" or labels.shape not in {shape, (*shape, 1)}:
        raise DataError(
            f"The labels don't fit the output {output!r}, which needs the number of a class for each of {shape}. "
            f"Received: {labels.dtype} labels of shape {labels.shape}. Give integers of that shape: of one-hot labels "
            'np.argmax(labels, -1), of a mask in floats mask.astype("int32"); resize a mask of another size to the '
            "output's, without interpolation."
        )
    outside = labels[(labels < 0) | (labels >= classes)]
    wrong = outside[~np.isin(outside, list(without))]
    if wrong.size:
        names = " and ".join(map(str, sorted(without)))
        raise DataError(
            f"A label has no class in the output {output!r}, which tells {classes} classes apart. Received: a label of "
            f"{wrong.flat[0]}. Number the classes from 0 to {classes - 1}; {names} stand"
            f"{'s' if len(without) == 1 else ''} for no class."
        )


def _known(value: float) -> Figure:
    return Figure(value if np.isfinite(value) else None)


def _defined(value: Any) -> float:
    """Return the value, or infinity in the place of NaN, which `mean_figure` takes for an image without a value."""
    return float("inf") if np.isnan(value) else float(value)
