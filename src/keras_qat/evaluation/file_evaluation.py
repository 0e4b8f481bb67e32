"""What an evaluation is made of.

The result of evaluating model files as one frozen value, from which table and JSON are made.

Model files on validation images: accuracy of each, and whether two differ.
"""

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from keras_qat.data import ImageSet, Labelled, Skipped, load_validation
from keras_qat.errors import DataError, UserError
from keras_qat.evaluation.comparison import Comparison, Proportion, compare, proportion
from keras_qat.evaluation.latency import TimedRuntime
from keras_qat.evaluation.options import EvaluationSettings
from keras_qat.evaluation.predictions import Predictions, fixed_batch, predict
from keras_qat.evaluation.served_model import ServedModel, open_model, require_classes, warn_unless_finite


@dataclass(frozen=True)
class ScoredFile:
    """One file on all images.

    Args:
        name: what the table calls it.
        path: as it was given.
        engine: the engine and its version.
        device: where it ran.
        preprocessing: what was done to the images, as `Preprocessing.to_dict()` has it.
        batch_size: images in a run.
        top1: the label is the best class; `None` for images without labels.
        top_k: the label is among the k best; likewise.
        images_per_second: in the engine alone, median of the batches.
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
        """The figures as JSON can hold them."""
        return {**vars(self), "top1": _as_dict(self.top1), "top_k": _as_dict(self.top_k)}


@dataclass(frozen=True)
class Evaluation:
    """One file, or two compared.

    Args:
        data: name of the images.
        images: how many there were.
        skipped: how many more were left out: records and image files that turned out broken.
        k: of top-k.
        files: the file, and the one that it is compared with.
        comparison: of the two; `None` for one, and for images without labels.
        agreement: the images to which both give the same best class; `None` for one.
    """

    data: str
    images: int
    skipped: int
    k: int
    files: tuple[ScoredFile, ...]
    comparison: Comparison | None = None
    agreement: Proportion | None = None

    def to_dict(self) -> dict[str, Any]:
        """All figures as JSON can hold them."""
        return {
            **vars(self),
            "files": [file.to_dict() for file in self.files],
            "comparison": None if self.comparison is None else self.comparison.to_dict(),
            "agreement": _as_dict(self.agreement),
        }


def _as_dict(share: Proportion | None) -> dict[str, float] | None:
    return None if share is None else share.to_dict()


_logger = logging.getLogger(__name__)

_SHOWN = 5


def evaluate_file(settings: EvaluationSettings) -> Evaluation:
    """Open the files, hold them to the data, run them one after the other on the same images.

    Args:
        settings: which files, on what.

    Returns:
        The accuracy of each, and the comparison of two; for images without labels only the agreement of two.

    Raises:
        DataError: the images can't be read, there are none, or they aren't of the model's classes; or one file is to
            be held to images without labels.
        StorageError: a file is missing or corrupt.
        UnsupportedModelError: a file is no classifier of images.
        UserError: an engine can't run its file, or nobody says how to prepare the images.
    """
    with ExitStack() as stack:
        models: list[ServedModel] = []
        for path, engine in settings.files:
            model = open_model(path, engine=engine, threads=settings.threads, preprocessing=settings.preprocessing)
            stack.callback(model.runtime.close)
            _require_other(model, models)
            models.append(model)
        data = _validation(models, settings)
        predictions, files = [], []
        skipped = Skipped()
        for model, name in zip(models, _names(models), strict=True):
            found, file = _score(model, data, name, settings, skipped)
            predictions.append(found)
            files.append(file)
    if skipped.count:
        _logger.warning("Left out %d images that can't be decoded: %s", skipped.count, _few(skipped.reasons))
    pairs = list(combinations(predictions, 2))
    agreements = [proportion(int(np.sum(first.agreeing(second))), len(first.labels)) for first, second in pairs]
    comparisons = [compare(first, second) for first, second in pairs] if data.images.labelled else []
    return Evaluation(
        data=data.images.name,
        images=len(predictions[0].labels),
        # Those that loading left out, and those that didn't decode.
        skipped=data.skipped + skipped.count,
        k=predictions[0].classes.shape[1],
        files=tuple(files),
        comparison=next(iter(comparisons), None),
        agreement=next(iter(agreements), None),
    )


def _require_other(model: ServedModel, others: Sequence[ServedModel]) -> None:
    """Refuse to compare a file with itself: the engine may be named once and be the default once."""
    for other in others:
        same_engine = (model.runtime.engine, model.runtime.device) == (other.runtime.engine, other.runtime.device)
        if same_engine and model.path.resolve() == other.path.resolve():
            raise UserError(
                f"A file can't be compared with itself in the same engine. Received: {str(model.path)!r} twice in "
                f"{model.runtime.engine}. Name another file, or another engine."
            )


def _validation(models: Sequence[ServedModel], settings: EvaluationSettings) -> Labelled:
    """The images, of the classes of all models; each model prepares them in its own way."""
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


def _score(
    model: ServedModel, data: Labelled, name: str, settings: EvaluationSettings, skipped: Skipped
) -> tuple[Predictions, ScoredFile]:
    images: ImageSet = replace(data.images, preprocessing=model.preprocessing)
    size = fixed_batch(model.runtime.inputs) or settings.batch_size
    where = (model.runtime.engine, model.runtime.device)
    _logger.info("Evaluating %s in %s (%s) on %d images of %s.", name, *where, len(images), images.name)
    timed = TimedRuntime(model.runtime)
    found = predict(
        timed,
        images.arrays(size, skipped=skipped if settings.skip_bad else None),
        description=f"evaluating {name}",
        total=images.steps(size),
        best=settings.k,
        meaning=model.meaning,
    )
    _check_scores(model, found, data)
    return found, ScoredFile(
        name=name,
        path=str(model.path),
        engine=model.runtime.engine,
        device=model.runtime.device,
        preprocessing=dict(model.preprocessing.to_dict()),
        batch_size=size,
        top1=_right(found, 1),
        top_k=_right(found, settings.k),
        images_per_second=timed.images_per_second or 0.0,
    )


def _right(found: Predictions, k: int) -> Proportion | None:
    return proportion(int(np.sum(found.right(k))), len(found.labels)) if found.labelled else None


def _check_scores(model: ServedModel, found: Predictions, data: Labelled) -> None:
    """What only shows when the model has run."""
    if found.scores is None:
        return
    require_classes(model.path, found.scores.shape[1], data)
    warn_unless_finite(model.path, found.scores)


def _few(reasons: Sequence[str]) -> str:
    shown = "; ".join(reasons[:_SHOWN])
    return f"{shown}; and {len(reasons) - _SHOWN} more" if len(reasons) > _SHOWN else shown


def _names(models: list[ServedModel]) -> list[str]:
    """What the table calls each file: as little as tells them apart."""
    paths = [model.path for model in models]
    for names in ([path.name for path in paths], [str(path) for path in paths]):
        if len(set(names)) == len(names):
            return names
    return [f"{path} in {model.runtime.engine}" for path, model in zip(map(Path, paths), models, strict=True)]
