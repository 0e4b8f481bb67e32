"""Model files on validation data: how good each is, and whether two of them differ."""

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np

from keras_qat.data import Labelled, Signature, Skipped, load_validation, reads_images
from keras_qat.errors import DataError, UserError
from keras_qat.evaluation import options, served_model
from keras_qat.evaluation.comparison import Proportion, compare, proportion
from keras_qat.evaluation.feeding import fixed_batch, require_memory, run_batch
from keras_qat.evaluation.judge_outputs import judge_outputs
from keras_qat.evaluation.predictions import Predictions, predict
from keras_qat.evaluation.scored_file import Evaluation, ScoredFile, TimedRuntime
from keras_qat.evaluation.served_tasks import class_labels, named_outputs, require_alike, served_tasks
from keras_qat.progress import track
from keras_qat.text import first_few
from keras_qat.types import OutputTask, is_classifier

_BYTES = 4
"""Bytes of a number of a prepared image."""

_logger = logging.getLogger(__name__)


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
    of_images = reads_images(settings.data)
    with ExitStack() as stack:
        models: list[served_model.ServedModel] = []
        for path, engine in settings.files:
            model = served_model.open_any_model(
                path,
                of_images=of_images,
                engine=engine,
                threads=settings.threads,
                preprocessing=settings.preprocessing,
                trust=settings.trust,
            )
            stack.callback(model.runtime.close)
            _require_other(model, models)
            models.append(model)
        data = _validation(models, settings)
        outputs = len(models[0].runtime.outputs)
        labels = class_labels(data.images, outputs)
        tasks = [served_tasks(model.path, model.runtime, model.facts, labels) for model in models]
        require_alike(tasks, [model.path for model in models])
        if not is_classifier(tasks[0]):
            return _judged(models, data, tasks[0], settings)
        models = [
            replace(model, meaning=task.scores or "classes") for model, (task,) in zip(models, tasks, strict=True)
        ]
        return _classified(models, data, settings)


def _classified(
    models: Sequence[served_model.ServedModel], data: Labelled, settings: options.EvaluationSettings
) -> Evaluation:
    """Evaluate classifiers with one output, one after the other."""
    for model in models:
        model.require_fit(data)
    predictions, files = [], []
    skipped = Skipped()
    for model, name in zip(models, _names(models), strict=True):
        predicted, file = _score(model, data, name, settings, skipped)
        predictions.append(predicted)
        files.append(file)
    _tell(skipped)
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


def _judged(
    models: Sequence[served_model.ServedModel],
    data: Labelled,
    tasks: Sequence[OutputTask],
    settings: options.EvaluationSettings,
) -> Evaluation:
    """Judge models of any tasks, side by side on the same batches. The first one is compared with the second."""
    names, size, skipped = _names(models), settings.batch_size, Skipped()
    timed = {name: TimedRuntime(model.runtime) for name, model in zip(names, models, strict=True)}
    sets = [
        data.images if it.preprocessing is None else replace(data.images, preprocessing=it.preprocessing)
        for it in models
    ]
    for name, model, images in zip(names, models, sets, strict=True):
        _require_memory(model, images, size, name)
        where = (model.runtime.engine, model.runtime.device)
        _logger.info("Evaluating %s in %s (%s) on %d samples of %s.", name, *where, len(images), images.name)
    # Both read the same images, each prepared in its own way. Those that can't be decoded are counted once.
    counted = [skipped, *(Skipped() for _ in models[1:])]
    passes = [
        images.arrays(size, skipped=one if settings.skip_bad else None)
        for images, one in zip(sets, counted, strict=True)
    ]
    batches = (
        (
            {
                name: partial(run_batch, timed[name], _in_order(x, models[0], model))
                for name, model, (x, _) in zip(names, models, batch, strict=True)
            },
            batch[0][1],
        )
        for batch in zip(*passes, strict=True)
    )
    other = names[1] if len(names) > 1 else None
    pairs = [(names[0], other), *((name, None) for name in names[1:])]
    found = judge_outputs(track(batches, f"evaluating {' and '.join(names)}", sets[0].steps(size)), tasks, pairs)
    _tell(skipped)
    files = tuple(
        ScoredFile(
            name=name,
            path=str(model.path),
            engine=model.runtime.engine,
            device=model.runtime.device,
            preprocessing=None if model.preprocessing is None else dict(model.preprocessing.to_dict()),
            batch_size=fixed_batch(model.runtime.inputs) or size,
            top1=None,
            top_k=None,
            images_per_second=timed[name].images_per_second or 0.0,
            outputs=found[pair],
        )
        for name, model, pair in zip(names, models, pairs, strict=True)
    )
    return Evaluation(data.images.name, files[0].outputs[0].images, data.skipped + skipped.count, settings.k, files)


def _in_order(x: Any, first: served_model.ServedModel, model: served_model.ServedModel) -> Any:
    """The inputs of a batch, which come in the order of the first model, in that of a model.

    A SavedModel has them in the order of their names. Inputs of other names are those at the same places.
    """
    names = [spec.name for spec in first.runtime.inputs]
    own = [spec.name for spec in model.runtime.inputs]
    if not isinstance(x, tuple | list) or set(names) != set(own):
        return x
    return tuple(x[names.index(name)] for name in own)


def _tell(skipped: Skipped) -> None:
    if skipped.count:
        reasons = first_few(skipped.reasons, separator="; ")
        _logger.warning("Left out %d images that can't be decoded: %s", skipped.count, reasons)


def _require_memory(model: served_model.ServedModel, images: Any, size: int, name: str) -> None:
    """Refuse batches of images that would not fit: as decoded, as prepared, and as the engine is given them."""
    prepared = model.preprocessing
    if prepared is not None:
        needed = 3 * _BYTES * min(size, len(images)) * prepared.height * prepared.width * prepared.channels
        require_memory(needed, f"{name} at batch size {size}")


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
    signature = Signature.of(first.runtime.inputs, named_outputs(first.runtime, first.facts))
    loaded = load_validation(
        settings.data, first.preprocessing, settings.seed, settings.skip_bad, first.num_classes, signature
    )
    if not loaded.images.labelled and settings.compare is None:
        lacking, remedy = _UNLABELLED[loaded.images.preprocessing is None]
        raise DataError(
            f"Without labels nothing tells how good a file is. Received: {settings.data}, {lacking}. Compare with "
            f"another file, such as the float baseline (--compare), which says {remedy}."
        )
    if settings.images is None:
        return loaded
    if settings.images > len(loaded.images):
        _logger.warning("Evaluating on %d images: %s has no more.", len(loaded.images), loaded.images.name)
    return replace(loaded, images=loaded.images.take(settings.images, settings.seed))


_UNLABELLED = {
    False: (
        "images without class folders",
        "on how many images both agree, or sort the images into a folder for each class",
    ),
    True: ("arrays without labels", "how far apart both are, or give labels (y)"),
}
"""By whether the data are arrays: what they lack, and what to do."""


def _names(models: Sequence[served_model.ServedModel]) -> list[str]:
    """Return the name of each file in the table: its name, its path, or both path and engine, if needed to differ."""
    paths = [model.path for model in models]
    for names in ([path.name for path in paths], [str(path) for path in paths]):
        if len(set(names)) == len(names):
            return names
    return [f"{model.path} in {model.runtime.engine}" for model in models]


def _score(
    model: served_model.ServedModel, data: Labelled, name: str, settings: options.EvaluationSettings, skipped: Skipped
) -> tuple[Predictions, ScoredFile]:
    images = data.images
    if model.preprocessing is not None:
        images = replace(images, preprocessing=model.preprocessing)
    size = fixed_batch(model.runtime.inputs) or settings.batch_size
    _require_memory(model, images, size, name)
    where = (model.runtime.engine, model.runtime.device)
    _logger.info("Evaluating %s in %s (%s) on %d images of %s.", name, *where, len(images), images.name)
    timed = TimedRuntime(model.runtime)
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
        preprocessing=None if model.preprocessing is None else dict(model.preprocessing.to_dict()),
        batch_size=size,
        top1=_right(predictions, 1),
        top_k=_right(predictions, settings.k),
        images_per_second=timed.images_per_second or 0.0,
    )


def _right(predictions: Predictions, k: int) -> Proportion | None:
    return proportion(int(np.sum(predictions.right(k))), len(predictions.labels)) if predictions.labelled else None
