"""A model in a file: opened, and checked against what it will be fed."""

import logging
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

import numpy as np

from keras_qat import graph, models, runtimes
from keras_qat.data import Labelled, Mode, Preprocessing
from keras_qat.errors import DataError, UnsupportedModelError, UserError
from keras_qat.evaluation.single_score import single_score
from keras_qat.files import FACTS_FILE
from keras_qat.text import first_few
from keras_qat.types import ScoreMeaning

_logger = logging.getLogger(__name__)

_PIXELS = np.dtype("uint8")
"""The dtype of the inputs of files that normalize by themselves."""

_READ = frozenset({"float16", "float32", "float64", _PIXELS.name})
_RANK = 4


@dataclass(frozen=True)
class ServedModel:
    """A model that is ready to run.

    Args:
        path: the file, as it was given.
        runtime: the opened file.
        preprocessing: the preprocessing of what the file is fed: whole pixels if it normalizes by itself; `None` if it
            is fed arrays as they are.
        class_names: the names in or beside the file; empty if there are none.
        num_classes: number of classes; `None` if the file doesn't say before it runs, or isn't a classifier with one
            output.
        meaning: what the scores of a classifier mean.
        facts: what is written in or beside the file.
    """

    path: Path
    runtime: runtimes.Runtime
    preprocessing: Preprocessing | None
    class_names: tuple[str, ...]
    num_classes: int | None
    meaning: ScoreMeaning = "classes"
    facts: models.ModelFacts | None = None

    def require_fit(self, data: Labelled) -> None:
        """Check that the model has the classes of the data.

        Raises:
            DataError: If the number of classes differs, the same classes are in another order, or a label has no
                score.
        """
        if self.num_classes is not None:
            require_classes(self.path, self.num_classes, data)
        if self.class_names != data.class_names and sorted(self.class_names) == sorted(data.class_names):
            raise DataError(
                f"The classes of {data.images.name} are those of {str(self.path)!r} in another order, so every label "
                f"would mean another class. Received: {first_few(data.class_names)}; the file has "
                f"{first_few(self.class_names)}. Give the data the model was made for."
            )


def open_model(
    path: Path,
    *,
    engine: str | None = None,
    threads: int | None = None,
    preprocessing: Preprocessing | None = None,
    trust: bool = False,
) -> ServedModel:
    """Open a classifier of images and find out how to feed it.

    Args:
        path: the model file, or the folder of a SavedModel.
        engine: the engine that runs it; chosen by its suffix if not given.
        threads: threads of one inference; the engine chooses if not given.
        preprocessing: how images are prepared; read in or beside the file, or from the first layer of a Keras model,
            if not given.
        trust: whether code in the file may run, as from `open_runtime`.

    Raises:
        StorageError: If the file is missing or corrupt.
        UnsupportedModelError: If it is not a classifier of RGB or gray images, or nothing shows what its single score
            means.
        UserError: If the engine can't run it, it is not trusted, or it is unknown how its images are prepared.
    """
    with ExitStack() as undo:
        runtime = undo.enter_context(runtimes.open_runtime(path, engine=engine, threads=threads, trust=trust))
        _require_classifier(path, runtime)
        facts = _facts(path, given=preprocessing is not None)
        fed = _fed(path, runtime, facts, preprocessing)
        meaning = _meaning(path, runtime, facts)
        undo.pop_all()
    width = runtime.outputs[0].shape[1]
    num_classes = None if width is None else graph.classes_of(width, meaning)
    return ServedModel(path, runtime, fed, () if facts is None else facts.class_names, num_classes, meaning, facts)


def open_any_model(
    path: Path,
    *,
    of_images: bool,
    engine: str | None = None,
    threads: int | None = None,
    preprocessing: Preprocessing | None = None,
    trust: bool = False,
) -> ServedModel:
    """Open a model of any inputs and outputs and find out how to feed it; what its outputs say is read later.

    Args:
        path: the model file, or the folder of a SavedModel.
        of_images: whether it is fed images, which must be prepared, or arrays as they are.
        engine: as for `open_model`, like the rest.
        threads: as for `open_model`.
        preprocessing: as for `open_model`.
        trust: as for `open_model`.

    Raises:
        StorageError: If the file is missing or corrupt.
        UnsupportedModelError: If it is to be fed images and doesn't read any.
        UserError: If the engine can't run it, it is not trusted, or it is unknown how its images are prepared.
    """
    with ExitStack() as undo:
        runtime = undo.enter_context(runtimes.open_runtime(path, engine=engine, threads=threads, trust=trust))
        facts = _facts(path, given=preprocessing is not None)
        fed = None
        if of_images:
            _require_images(path, runtime)
            fed = _fed(path, runtime, facts, preprocessing)
        undo.pop_all()
    return ServedModel(
        path, runtime, fed, () if facts is None else facts.class_names, _classes(runtime, facts), facts=facts
    )


def _classes(runtime: runtimes.Runtime, facts: models.ModelFacts | None) -> int | None:
    """The number of classes that a classifier with one output tells apart; `None` for other models."""
    if [len(spec.shape) for spec in runtime.outputs] != [2] or (facts is not None and facts.tasks):
        return None
    width = runtime.outputs[0].shape[1]
    return 2 if width == 1 else width  # A single score is that of the second of two classes.


def _fed(
    path: Path, runtime: runtimes.Runtime, facts: models.ModelFacts | None, given: Preprocessing | None
) -> Preprocessing:
    """How the images are prepared that the file is fed: files that normalize by themselves read pixels."""
    written = None if facts is None or given is not None else facts.preprocessing
    known = _prepared(path, runtime, given) if written is None else written
    _require_prepared(path, runtime, known)
    return known.raw() if runtime.inputs[0].dtype == _PIXELS else known


def require_classes(path: Path, num_classes: int, data: Labelled) -> None:
    """Check that a model has a class for each label of the data, which may be unlabelled.

    Args:
        path: the model file.
        num_classes: number of its classes.
        data: the data.

    Raises:
        DataError: If the data have another number of classes, as far as that is known, or a label without a class.
    """
    name, labels = data.images.name, data.images.labels
    if data.class_names and num_classes != len(data.class_names):
        raise DataError(
            f"The model tells {num_classes} classes apart, {name} has {len(data.class_names)}. "
            f"Received: {str(path)!r} and {first_few(data.class_names)}. Give the data the model was made for."
        )
    if len(labels) and data.images.labelled and not 0 <= labels.min() <= labels.max() < num_classes:
        raise DataError(
            f"{name} has labels that none of the model's {num_classes} classes is for. "
            f"Received: labels from {labels.min()} to {labels.max()}. Number the classes from 0 to {num_classes - 1}."
        )


def warn_unless_finite(path: Path, scores: np.ndarray) -> None:
    """Log a warning about a model whose scores aren't finite, which shows only when it has run.

    Args:
        path: the model file.
        scores: its scores, of any shape.

    Example:
        >>> warn_unless_finite(Path("my.onnx"), np.array([0.25, 0.75]))
    """
    if not np.all(np.isfinite(scores)):
        _logger.warning(
            "%s gives scores that aren't finite, so its classes mean nothing. Is it fed what it was trained on?", path
        )


def _meaning(path: Path, runtime: runtimes.Runtime, facts: models.ModelFacts | None) -> ScoreMeaning:
    """What the scores mean: as is written in or beside the file, else as the operators that compute them show."""
    width = runtime.outputs[0].shape[1]
    if width not in {1, None}:
        return "classes"  # Even if a file of another model lies beside it that says otherwise.
    if facts is not None and facts.scores != "classes":
        return facts.scores
    return "classes" if width is None else single_score(path, runtime)


def _facts(path: Path, *, given: bool) -> models.ModelFacts | None:
    """What is written in or beside the file; what can't be understood is left out if the user gives preprocessing."""
    try:
        return models.read_model_facts(path.absolute())
    except UserError:
        if not given:
            raise
        return None


def _prepared(path: Path, runtime: runtimes.Runtime, given: Preprocessing | None) -> Preprocessing:
    """The preprocessing that the user gives, else the one that the first layer of a Keras model shows."""
    if isinstance(runtime, runtimes.KerasRuntime):
        return models.input_preprocessing(runtime.model, given, path)
    if given is None:
        raise UserError(
            f"Nothing says how images are prepared for this model. Received: {str(path)!r}, with nothing in it and no "
            f"{FACTS_FILE} beside it. Say it with --preprocessing MODE:SIZE or MODE:SIZE:RESIZE, such as "
            f"caffe:224:256: the mode ({', '.join(get_args(Mode))}), the side of the network's input, and that of the "
            "image's shorter side before the crop."
        )
    # A file of one channel reads gray images, even if the user doesn't say so.
    return replace(given, channels=1) if runtime.inputs[0].shape[3] == 1 else given


def _require_classifier(path: Path, runtime: runtimes.Runtime) -> None:
    shapes = [len(spec.shape) for spec in runtime.inputs], [len(spec.shape) for spec in runtime.outputs]
    if shapes != ([_RANK], [2]):
        raise UnsupportedModelError(
            "Only a model that reads images (batch, height, width, channels) and writes scores (batch, classes) can "
            f"classify one. Received: {_described(path, runtime)}. Give a classifier of images."
        )
    _require_images(path, runtime)


def _require_images(path: Path, runtime: runtimes.Runtime) -> None:
    inputs = runtime.inputs
    described = _described(path, runtime)
    if [len(spec.shape) for spec in inputs] != [_RANK]:
        raise UnsupportedModelError(
            "Only a model that reads images (batch, height, width, channels) can be fed a folder of them. "
            f"Received: {described}. Give a model of images, or arrays that fit its inputs (.npy, .npz, HDF5, a "
            "function)."
        )
    if inputs[0].shape[3] not in {1, 3, None} or inputs[0].dtype.name not in _READ:
        raise UnsupportedModelError(
            f"Images are RGB or gray with the channels last, of {', '.join(sorted(_READ))}. Received: {described}. "
            "Export the model that way."
        )


def _require_prepared(path: Path, runtime: runtimes.Runtime, prepared: Preprocessing) -> None:
    _, height, width, channels = runtime.inputs[0].shape
    described = _described(path, runtime)
    if height not in {prepared.height, None} or width not in {prepared.width, None}:
        raise UserError(
            f"The images are prepared at {prepared.height} x {prepared.width} pixels, which this model doesn't read. "
            f"Received: {described}. Give its size with --preprocessing MODE:SIZE[:RESIZE]."
        )
    if channels not in {prepared.channels, None}:
        raise UserError(
            f"The images are prepared with {prepared.channels} channel(s), which this model doesn't read. "
            f"Received: {described}. Say with --preprocessing how they are to be prepared; ':gray' behind it is for "
            "models of one channel."
        )


def _described(path: Path, runtime: runtimes.Runtime) -> str:
    return f"{path} reads {'; '.join(map(str, runtime.inputs))} and writes {'; '.join(map(str, runtime.outputs))}"
