"""What a run starts from: the float model, by name or from a user's file, and its images.

A network by name has weights from Keras or from a file. On the embedded digits it is trained here if no weights are
given, and cached. A run that is read back has its images loaded again, and compared with those it was made with.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import platformdirs

from keras_qat import evaluation, export, files, graph, layers, models, onnx, training
from keras_qat.data import (
    ArraySpec,
    Augmentation,
    DataSet,
    Labelled,
    Preprocessing,
    Signature,
    Splits,
    load_data,
    reads_images,
)
from keras_qat.errors import DataError, StorageError, UserError
from keras_qat.run.folder import RunFolder
from keras_qat.run.settings import Settings
from keras_qat.run.task_choice import choose_tasks, output_names
from keras_qat.run.whole_batches import whole_batches
from keras_qat.types import OutputTask, ScoreMeaning, is_classifier

_logger = logging.getLogger(__name__)

_DIGITS = "digits"
_DIGITS_SIZE = 32
"""The smallest input that the ResNets of `keras.applications` take."""

_DIGITS_EPOCHS, _DIGITS_BATCH = 8, 32

_IMAGENET_CLASSES = 1000

_AXES = 2
"""Axes of scores of whole inputs, (batch, classes); and the fewest classes."""

_SINGLE_SCORE: Mapping[ScoreMeaning, str] = {
    "probability": "The model's one score is read as the probability of the second of two classes, chosen above 0.5.",
    "logit": "The model's one score is read as the logit of the second of two classes, chosen above 0.",
}
"""The note about a model whose outputs are not one score for each class."""


@dataclass(frozen=True, eq=False)
class Start:
    """What a run starts from.

    Args:
        model: the trained float model.
        data: its data, at the network's size.
        tasks: what each output of the model says.
    """

    model: Any
    data: Splits
    tasks: tuple[OutputTask, ...]


def open_start(settings: Settings) -> Start:
    """Load the float model and the images that the settings name.

    Args:
        settings: settings of the run; `model`, `weights`, `data`, `preprocessing`, `skip_bad`, `seed` and
            `embed_preprocessing` decide.

    Raises:
        DataError: If the data can't be read as images, or has other classes than the model.
        StorageError: If the model file can't be read.
        UnsupportedModelError: If the model does not classify images.
        UserError: If there are no weights and the data are not the embedded digits, or if settings exclude each other.
        WeightsError: If the weights can't be used.
    """
    path = settings.model_file
    return _named_start(settings) if path is None else _own_start(settings, path)


def _named_start(settings: Settings) -> Start:
    if settings.model.lower() not in models.names() and files.is_there(Path(settings.model)):
        raise UserError(
            f"A model is read from a .keras file. Received: {settings.model!r}, which is none. Load it in Python, save "
            "it with `model.save('my.keras')`, and give that."
        )
    entry = models.find(settings.model)
    if settings.preprocessing is not None:
        raise UserError(
            f"How images are prepared for {entry.name} is known. Received: --preprocessing {settings.preprocessing}. "
            "Drop it, or give the path of a .keras file as the model."
        )
    # The embedded digits are small, and so is the network for them.
    preprocessing = entry.preprocessing.for_size(_DIGITS_SIZE) if settings.data == _DIGITS else entry.preprocessing
    data = load_splits(settings, preprocessing)
    model = _float_model(settings, entry, data)
    return Start(model, data, graph.read_tasks(graph.trace(model), class_labels=True))


def _float_model(settings: Settings, entry: models.ZooEntry, data: Splits) -> Any:
    """Build a network by name with its trained weights."""
    if settings.weights is None and settings.data == _DIGITS:
        return _digits_baseline(settings, entry, data)
    if settings.weights is None:
        raise UserError(
            f"{entry.name} has random weights, and nothing trained can come of quantizing those. Received: "
            f"weights=None with data={settings.data!r}. Give `--weights imagenet` or the path of your weights."
        )
    # Images without labels don't say how many classes there are.
    num_classes = data.num_classes or _IMAGENET_CLASSES
    return models.build_model(
        entry, weights=settings.weights, num_classes=num_classes, size=data.train.preprocessing.height
    )


def _digits_baseline(settings: Settings, entry: models.ZooEntry, data: Splits) -> Any:
    """A network trained on the embedded digits: from the cache, or trained now and cached."""
    path = cache_path(entry.name, settings.seed)
    with files.waiting_lock(path, _logger.info):
        if files.is_file(path):
            try:
                return models.load_model_file(path)
            except StorageError as error:
                _logger.warning("The cached baseline %s can't be read (%s); training it again.", path, error)
        trained = _train_baseline(settings, entry, data, path)
        export.export_keras(trained, path)
    return trained


def _train_baseline(settings: Settings, entry: models.ZooEntry, data: Splits, path: Path) -> Any:
    keras.utils.set_random_seed(settings.seed)
    model = models.build_model(entry, weights=None, num_classes=data.num_classes, size=data.train.preprocessing.height)
    _logger.info("Training the float baseline of %s on digits, once; it is kept in %s.", entry.name, path)
    # The baseline is cached for all runs, whether or not the files of this one read whole pixels.
    train, selection = (
        replace(images, preprocessing=replace(images.preprocessing, whole_pixels=False))
        for images in (data.train, data.selection)
    )
    epochs = epochs_of(train, _DIGITS_BATCH, settings.seed)
    return training.train_baseline(model, epochs, selection.batches(256), epochs=_DIGITS_EPOCHS, seed=settings.seed)


def cache_path(model: str, seed: int) -> Path:
    """The file that caches a model's baseline on the digits. Its name changes with all that the baseline depends on."""
    recipe = {
        "model": model,
        "data": _DIGITS,
        "size": _DIGITS_SIZE,
        "epochs": _DIGITS_EPOCHS,
        "batch": _DIGITS_BATCH,
        "seed": seed,
        "keras": keras.version(),
    }
    digest = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:12]
    return Path(platformdirs.user_cache_path("keras-qat")) / "baselines" / f"{model}-{_DIGITS}-{digest}.keras"


def epochs_of(images: DataSet, batch_size: int, seed: int, augment: Augmentation | None = None) -> Callable[[int], Any]:
    """The batches of each epoch, shuffled and augmented.

    Args:
        images: the training data.
        batch_size: images in a batch.
        seed: seed of the first epoch; epoch e uses `seed + e`, so that a resumed run sees the same batches.
        augment: how images are varied. `None` leaves them as they are.

    Returns:
        A function from the number of an epoch to its batches.
    """
    return lambda epoch: images.batches(batch_size, shuffle_seed=seed + epoch, augment=augment)


def _own_start(settings: Settings, path: Path) -> Start:
    if settings.weights is not None:
        raise UserError(
            f"A .keras file has its weights in it. Received: {str(path)!r} with --weights {settings.weights}. Drop one."
        )
    model = models.load_model_file(path)
    _require_float(model, path)
    onnx.require_exportable(model)
    traced = graph.trace(model)
    data = load_splits(
        settings, _preprocessing(settings, model, path), _possible_classes(traced), _signature(model, traced)
    )
    for samples in (data.train, data.selection):
        whole_batches(samples, model)
    tasks = choose_tasks(traced, settings.task, data.train.label_kinds, output_names(model, traced))
    if is_classifier(tasks) and data.train.labelled:
        num_classes = graph.classes_of(int(model.output_shape[-1]), tasks[0].scores or "classes")
        evaluation.require_classes(path, num_classes, Labelled(data.validation, data.class_names))
    elif data.train.labelled and data.train.label_kinds != tuple(task.kind for task in tasks):
        _logger.info("The labels of %s say something else than the model's outputs, and aren't used.", data.name)
        data = data.unlabelled()
    _tell(tasks, traced, settings)
    return Start(model, data, tasks)


def _preprocessing(settings: Settings, model: Any, path: Path) -> Preprocessing | None:
    """How images are prepared for a user's model; `None` for data of arrays, which are fed as they are."""
    if reads_images(settings.data):
        return models.input_preprocessing(model, settings.preprocessing, path)
    if settings.preprocessing is not None or settings.export.embed_preprocessing:
        given = settings.preprocessing or "--embed-preprocessing"
        raise UserError(
            "Arrays are fed to the model as they are: only images are resized and normalized. "
            f"Received: {given} with --data {settings.data}. Drop it, or give a folder of images."
        )
    return None


def _signature(model: Any, traced: graph.Trace) -> Signature:
    """What arrays must fit: the model's inputs and outputs, by their names in the graph."""
    shapes = (tuple(tensor.shape) for tensor in model.inputs)
    dtypes = (keras.backend.standardize_dtype(tensor.dtype) for tensor in model.inputs)
    inputs = map(ArraySpec, graph.input_names(model), shapes, dtypes)
    outputs = zip(output_names(model, traced), map(traced.shape, traced.graph.outputs), strict=True)
    return Signature(tuple(inputs), tuple(ArraySpec(name, shape) for name, shape in outputs))


def _possible_classes(model: graph.Trace) -> int:
    """The number of classes that the only output can tell apart; 0 if it isn't (batch, scores)."""
    shapes = [model.shape(tensor) for tensor in model.graph.outputs]
    width = shapes[0][-1] if len(shapes) == 1 and len(shapes[0]) == _AXES else None
    return 0 if width is None else max(width, _AXES)


def _tell(tasks: Sequence[OutputTask], model: graph.Trace, settings: Settings) -> None:
    """Say what the only output was taken for, where the model and the labels leave it open."""
    scores = tasks[0].scores
    if is_classifier(tasks) and scores is not None and scores in _SINGLE_SCORE:
        _logger.info(_SINGLE_SCORE[scores])
    elif len(tasks) == 1 and not settings.task and graph.as_task(model, 0, "classification"):
        _logger.info(
            "The model's output %r is judged as numbers. If it has scores of classes, say so with "
            "--task classification.",
            tasks[0].output,
        )


def _require_float(model: Any, path: Path) -> None:
    """Refuse a model that is quantized already."""
    if any(isinstance(layer, layers.FakeQuantize) for layer in model.layers):
        raise UserError(
            f"This model is quantized already. Received: {str(path)!r}. Give the float model that it was made from, or "
            "write this one to a file with `keras-qat export`."
        )


def load_splits(
    settings: Settings,
    preprocessing: Preprocessing | None,
    num_classes: int | None = None,
    signature: Signature | None = None,
) -> Splits:
    """Load the data of a run, prepared for its network.

    Args:
        settings: settings of the run; `data`, `seed`, `skip_bad` and `embed_preprocessing` decide.
        preprocessing: how the network's images are prepared; `None` for arrays.
        num_classes: number of the network's classes, for data that don't decide it.
        signature: what the network reads and gives, which arrays must fit.

    Raises:
        DataError: If the data can't be read.
    """
    whole = None
    if preprocessing is not None:
        whole = replace(preprocessing, whole_pixels=settings.export.embed_preprocessing)
    return load_data(settings.data, whole, settings.seed, settings.skip_bad, num_classes, signature)


def load_saved(settings: Settings) -> Splits:
    """Load the images of a run that is read back, divided and prepared as they were.

    Args:
        settings: settings of the run. `data` says where its images are now.

    Raises:
        DataError: If the images can't be read or are not those of the run, so that images which calibrated would
            judge.
        StorageError: If the run has no preprocessing.json.
    """
    folder = RunFolder(settings.folder)
    facts = folder.facts()
    try:
        splits = load_splits(settings, facts.preprocessing, len(facts.class_names) or None)
    except DataError as error:
        raise DataError(
            f"The run's images can't be read. {error} If they were moved, or given relative to another "
            f"folder than {str(Path.cwd())!r}, say where they are now with --data."
        ) from error
    saved, current = folder.fingerprints(), splits.fingerprints()
    if isinstance(saved, dict) and saved.get("version") != current["version"]:
        raise DataError(
            "The run was made by an earlier version of keras-qat, which told images apart by their names and sizes: "
            "whether they are still the same can't be known. Received: fingerprints of version "
            f"{saved.get('version', '1')!r} in {str(settings.folder)!r}, and {current['version']!r} now. Make the run "
            "again."
        )
    if saved not in (None, current):
        raise DataError(
            "The images aren't those that the run was made with: some were added, removed or changed, and those "
            f"that judge may now be among those that calibrated. Received: {settings.data}, with "
            f"{len(splits.train)} images to train. Make the run again, or say with --data where its images are."
        )
    return splits
