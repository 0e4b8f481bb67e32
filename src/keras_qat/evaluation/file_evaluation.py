"""Model files on validation images: the accuracy of each, and whether two of them differ."""

import logging
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np

from keras_qat.data import Labelled, Skipped, load_validation
from keras_qat.errors import DataError, UserError
from keras_qat.evaluation import options, served_model
from keras_qat.evaluation.comparison import Comparison, Proportion, compare, proportion
from keras_qat.evaluation.feeding import fixed_batch, require_memory
from keras_qat.evaluation.predictions import Predictions, predict
from keras_qat.runtimes import Runtime
from keras_qat.text import first_few

_BYTES = 4
"""Bytes of a number of a prepared image."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ScoredFile:
    """One file on all images.

    Args:
        name: The name of the file in the table.
        path: The path as it was given.
        engine: The engine and its version.
        device: Where the file ran.
        preprocessing: The preprocessing of the images, from `Preprocessing.to_dict()`.
        batch_size: The number of images in a run.
        top1: The images whose label is the best class; `None` for images without labels.
        top_k: The images whose label is among the k best classes; `None` for images without labels.
        images_per_second: The median over the batches of the speed of the engine alone.
    """

    name: str
    path: str
    engine: str
    device: str
    preprocessing: dict[str, Any]
    batch_size: int
    top1: Proportion | None
    top_k: Proportion | None
    images_per_second: float

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as JSON types."""
        return {**vars(self), "top1": _as_dict(self.top1), "top_k": _as_dict(self.top_k)}


@dataclass(frozen=True)
class Evaluation:
    """The result of evaluating one file, or of comparing two.

    Args:
        data: The name of the data set.
        images: The number of images evaluated.
        skipped: The number of broken records and image files that were left out.
        k: The k of top-k.
        files: The file, and the file it is compared with.
        comparison: The comparison of the two; `None` for one file, and for images without labels.
        agreement: The images for which both have the same best class; `None` for one file.
    """

    data: str
    images: int
    skipped: int
    k: int
    files: tuple[ScoredFile, ...]
    comparison: Comparison | None = None
    agreement: Proportion | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return all figures as JSON types."""
        return {
            **vars(self),
            "files": [file.to_dict() for file in self.files],
            "comparison": _as_dict(self.comparison),
            "agreement": _as_dict(self.agreement),
        }


def _as_dict(figures: Proportion | Comparison | None) -> dict[str, Any] | None:
    return None if figures is None else figures.to_dict()


def evaluate_file(settings: options.EvaluationSettings) -> Evaluation:
    """Open the files, check that they fit the data, and run them one after the other on the same images.

    Args:
        settings: Which files, on which images.

    Returns:
        The accuracy of each file, and the comparison of two. For images without labels only the agreement of two.

    Raises:
        DataError: If the images cannot be read, if there are none, if they do not have the model's classes, or if a
            single file is evaluated on images without labels.
        StorageError: If a file is missing or corrupt.
        UnsupportedModelError: If a file is not a classifier of images.
        UserError: If an engine cannot run its file, or if the preprocessing of the images is unknown.
    """
    with ExitStack() as stack:
        models: list[served_model.ServedModel] = []
        for path, engine in settings.files:
            model = served_model.open_model(
                path,
                engine=engine,
                threads=settings.threads,
                preprocessing=settings.preprocessing,
                trust=settings.trust,
            )
            stack.callback(model.runtime.close)
            _require_other(model, models)
            models.append(model)
        data = _validation(models, settings)
        predictions, files = [], []
        skipped = Skipped()
        for model, name in zip(models, _names(models), strict=True):
            predicted, file = _score(model, data, name, settings, skipped)
            predictions.append(predicted)
            files.append(file)
    if skipped.count:
        reasons = first_few(skipped.reasons, separator="; ")
        _logger.warning("Left out %d images that can't be decoded: %s", skipped.count, reasons)
    pairs = list(combinations(predictions, 2))
    agreements = [proportion(int(np.sum(first.agreeing(second))), len(first.labels)) for first, second in pairs]
    comparisons = [compare(first, second) for first, second in pairs] if data.images.labelled else []
    return Evaluation(
        data=data.images.name,
        images=len(predictions[0].labels),
        # Images that were left out while loading, and images that could not be decoded.
        skipped=data.skipped + skipped.count,
        k=predictions[0].classes.shape[1],
        files=tuple(files),
        comparison=next(iter(comparisons), None),
        agreement=next(iter(agreements), None),
    )


def _require_other(model: served_model.ServedModel, others: Sequence[served_model.ServedModel]) -> None:
    """Refuse to compare a file with itself. The same engine may be named once and be the default once."""
    for other in others:
        same_engine = (model.runtime.engine, model.runtime.device) == (other.runtime.engine, other.runtime.device)
        if same_engine and model.path.resolve() == other.path.resolve():
            raise UserError(
                f"A file can't be compared with itself in the same engine. Received: {str(model.path)!r} twice in "
                f"{model.runtime.engine}. Name another file, or another engine."
            )


def _validation(models: Sequence[served_model.ServedModel], settings: options.EvaluationSettings) -> Labelled:
    """Return the images, which have the classes of all models. Each model prepares them in its own way later."""
    first = models[0]
    loaded = load_validation(settings.data, first.preprocessing, settings.seed, settings.skip_bad, first.num_classes)
    if not loaded.images.labelled and settings.compare is None:
        raise DataError(
            f"Without labels nothing tells how good a file is. Received: {settings.data}, images without class "
            "folders. Compare with another file, such as the float baseline (--compare), which says on how many images "
            "both agree, or sort the images into a folder for each class."
        )
    for model in models:
        model.require_fit(loaded)
    if settings.images is None:
        return loaded
    if settings.images > len(loaded.images):
        _logger.warning("Evaluating on %d images: %s has no more.", len(loaded.images), loaded.images.name)
    return replace(loaded, images=loaded.images.take(settings.images, settings.seed))


def _names(models: list[served_model.ServedModel]) -> list[str]:
    """Return the name of each file in the table: its name, its path, or both path and engine, if needed to differ."""
    paths = [model.path for model in models]
    for names in ([path.name for path in paths], [str(path) for path in paths]):
        if len(set(names)) == len(names):
            return names
    return [f"{model.path} in {model.runtime.engine}" for model in models]


def _score(
    model: served_model.ServedModel, data: Labelled, name: str, settings: options.EvaluationSettings, skipped: Skipped
) -> tuple[Predictions, ScoredFile]:
    images = replace(data.images, preprocessing=model.preprocessing)
    size = fixed_batch(model.runtime.inputs) or settings.batch_size
    # As decoded, as prepared, and as the engine is given them.
    prepared = images.preprocessing
    needed = 3 * _BYTES * min(size, len(images)) * prepared.height * prepared.width * prepared.channels
    require_memory(needed, f"{name} at batch size {size}")
    where = (model.runtime.engine, model.runtime.device)
    _logger.info("Evaluating %s in %s (%s) on %d images of %s.", name, *where, len(images), images.name)
    timed = _TimedRuntime(model.runtime)
    predictions = predict(
        timed,
        images.arrays(size, skipped=skipped if settings.skip_bad else None),
        description=f"evaluating {name}",
        total=images.steps(size),
        best=settings.k,
        meaning=model.meaning,
    )
    if predictions.scores is not None:
        # Some files do not state the number of their classes, and only a run shows whether scores are finite.
        served_model.require_classes(model.path, predictions.scores.shape[1], data)
        served_model.warn_unless_finite(model.path, predictions.scores)
    return predictions, ScoredFile(
        name=name,
        path=str(model.path),
        engine=model.runtime.engine,
        device=model.runtime.device,
        preprocessing=dict(model.preprocessing.to_dict()),
        batch_size=size,
        top1=_right(predictions, 1),
        top_k=_right(predictions, settings.k),
        images_per_second=timed.images_per_second or 0.0,
    )


def _right(predictions: Predictions, k: int) -> Proportion | None:
    return proportion(int(np.sum(predictions.right(k))), len(predictions.labels)) if predictions.labelled else None


class _TimedRuntime(Runtime):
    """Runs another runtime and times its runs, without the time that reading the images takes.

    Args:
        runtime: The model in an engine. The caller closes it.
    """

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime.engine, runtime.device, runtime.inputs, runtime.outputs)
        self._runtime = runtime
        self._rates: list[float] = []

    @property
    def images_per_second(self) -> float | None:
        """The median over the runs, so that the first run, which prepares, hardly counts; `None` before any run."""
        return float(np.median(self._rates)) if self._rates else None

    def _run(self, inputs: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        start = time.perf_counter()
        outputs = self._runtime.run(*inputs)
        # The clock may not have advanced during the run of a tiny model.
        self._rates.append(len(inputs[0]) / max(time.perf_counter() - start, 1e-9))
        return outputs
