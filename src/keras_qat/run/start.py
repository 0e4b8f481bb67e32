"""The float model of the embedded digits, trained here and cached, and the epochs it is trained in.

What a run starts from: the float model, by name or from a file of the user's own, and its images.
"""

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import platformdirs

from keras_qat import evaluation, graph, models, training
from keras_qat.data import Augmentation, ImageSet, Labelled, Preprocessing, Splits, load_data
from keras_qat.errors import DataError, UnsupportedModelError, UserError
from keras_qat.export import export_keras
from keras_qat.files import is_there
from keras_qat.layers import FakeQuantize
from keras_qat.run.folder import RunFolder
from keras_qat.run.settings import Settings
from keras_qat.types import ScoreMeaning

_logger = logging.getLogger(__name__)

DIGITS = "digits"
DIGITS_SIZE = 32
"""The smallest input the ResNets of `keras.applications` take."""

_EPOCHS = 8
_BATCH_SIZE = 32


def digits_baseline(settings: Settings, entry: models.ZooEntry, data: Splits) -> Any:
    """The network trained on the embedded digits: from the cache, or trained now and put there.

    Args:
        settings: the run's; `seed` decides.
        entry: the network.
        data: the digits, at the network's size.
    """
    path = cache_path(entry.name, settings.seed)
    if path.exists():
        try:
            return keras.models.load_model(path, compile=False)
        except Exception as error:  # noqa: BLE001  (zip, JSON and HDF5 each fail in their own way)
            _logger.warning("The cached baseline %s can't be read (%s); training it again.", path, error)
    keras.utils.set_random_seed(settings.seed)
    model = models.build_model(entry, weights=None, num_classes=data.num_classes, size=data.train.preprocessing.size)
    _logger.info("Training the float baseline of %s on digits, once; it is kept in %s.", entry.name, path)
    train, selection = (_unrounded(images) for images in (data.train, data.selection))
    trained = training.train_baseline(
        model,
        epochs_of(train, _BATCH_SIZE, settings.seed),
        selection.batches(256),
        epochs=_EPOCHS,
        seed=settings.seed,
    )
    export_keras(trained, path)
    return trained


def _unrounded(images: ImageSet) -> ImageSet:
    """The images as the cached baseline saw them, whether or not this run's files read whole pixels."""
    return replace(images, preprocessing=replace(images.preprocessing, whole_pixels=False))


def epochs_of(images: ImageSet, batch_size: int, seed: int, augment: Augmentation | None = None) -> Any:
    """Epoch number → that epoch's batches, shuffled and varied by seed and epoch alone: a resumed run sees the same."""
    return lambda epoch: images.batches(batch_size, shuffle_seed=seed + epoch, augment=augment)


def cache_path(model: str, seed: int) -> Path:
    """Where the digits baseline of a model is kept; the name changes with all that it depends on."""
    recipe = {
        "model": model,
        "data": DIGITS,
        "size": DIGITS_SIZE,
        "epochs": _EPOCHS,
        "batch": _BATCH_SIZE,
        "seed": seed,
        "keras": keras.version(),
    }
    digest = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:12]
    return Path(platformdirs.user_cache_path("keras-qat")) / "baselines" / f"{model}-{DIGITS}-{digest}.keras"


_IMAGENET_CLASSES = 1000


_TOLD: Mapping[ScoreMeaning, str] = {
    "probability": "Its single score is read as the probability of the second of two classes: above 0.5 is that.",
    "logit": "Its single score is read as the logit of the second of two classes: above 0 is that.",
}
"""What is said where the classes aren't the model's own outputs."""


@dataclass(frozen=True, eq=False)
class Start:
    """What a run starts from.

    Args:
        model: the float model, trained.
        data: its images, at the network's size.
        meaning: of the model's scores.
    """

    model: Any
    data: Splits
    meaning: ScoreMeaning


def open_start(settings: Settings) -> Start:
    """The float model and the images that the settings name.

    Args:
        settings: the run's; `model`, `weights`, `data`, `preprocessing`, `skip_bad`, `seed` and `embed_preprocessing`
            decide.

    Raises:
        DataError: the data can't be read as images, or has other classes than the model.
        StorageError: the model file can't be read.
        UnsupportedModelError: the model is no classifier of images.
        UserError: there are no weights, and the data is not the embedded set; or settings exclude each other.
        WeightsError: the weights can't be used.
    """
    return _named(settings) if settings.model_file is None else _own(settings, settings.model_file)


def load_splits(settings: Settings, preprocessing: Preprocessing, num_classes: int | None = None) -> Splits:
    """The run's images, prepared for its network.

    Args:
        settings: the run's; `data`, `seed`, `skip_bad` and `embed_preprocessing` decide.
        preprocessing: of the network.
        num_classes: how many classes it tells apart, where the data doesn't decide that.

    Raises:
        DataError: the data can't be read as images.
    """
    whole = replace(preprocessing, whole_pixels=settings.export.embed_preprocessing)
    return load_data(settings.data, whole, settings.seed, settings.skip_bad, num_classes)


def load_saved(settings: Settings) -> Splits:
    """The images of a run that is read back, cut and prepared as they were.

    Args:
        settings: of the run. `data` says where its images are now.

    Raises:
        DataError: If they can't be read, or aren't the run's: images that calibrated would judge.
        StorageError: If the run doesn't say what its files expect of images.
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
    if folder.fingerprints() not in (None, splits.fingerprints()):
        raise DataError(
            "The images aren't those that the run was made with: some were added, removed or changed, and those "
            f"that judge may now be among those that calibrated. Received: {settings.data}, with "
            f"{len(splits.train)} images to train. Make the run again, or say with --data where its images are."
        )
    return splits


def _named(settings: Settings) -> Start:
    if settings.model.lower() not in models.names() and is_there(Path(settings.model)):
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
    preprocessing = entry.preprocessing.for_size(DIGITS_SIZE) if settings.data == DIGITS else entry.preprocessing
    data = load_splits(settings, preprocessing)
    model = _float_model(settings, entry, data)
    return Start(model, data, graph.score_meaning(graph.trace(model)) or "classes")


def _float_model(settings: Settings, entry: models.ZooEntry, data: Splits) -> Any:
    """Build the network of that name with its trained weights."""
    if settings.weights is None and settings.data == DIGITS:
        return digits_baseline(settings, entry, data)
    if settings.weights is None:
        raise UserError(
            f"{entry.name} has random weights, and nothing trained can come of quantizing those. Received: "
            f"weights=None with data={settings.data!r}. Give `--weights imagenet` or the path of your weights."
        )
    # Images without labels don't say how many classes there are.
    num_classes = data.num_classes or _IMAGENET_CLASSES
    return models.build_model(
        entry, weights=settings.weights, num_classes=num_classes, size=data.train.preprocessing.size
    )


def _own(settings: Settings, path: Path) -> Start:
    if settings.weights is not None:
        raise UserError(
            f"A .keras file has its weights in it. Received: {str(path)!r} with --weights {settings.weights}. Drop one."
        )
    model = models.load_model_file(path)
    meaning = _require_float_classifier(model, path)
    models.check_finite(model)
    num_classes = graph.classes_of(int(model.output_shape[-1]), meaning)
    data = load_splits(settings, models.input_preprocessing(model, settings.preprocessing, path), num_classes)
    if data.train.labelled:
        evaluation.require_classes(path, num_classes, Labelled(data.validation, data.class_names))
    if meaning in _TOLD:
        _logger.info(_TOLD[meaning])
    return Start(model, data, meaning)


def _require_float_classifier(model: Any, path: Path) -> ScoreMeaning:
    """Refuse what a run can't judge; the stages in Python take more."""
    meaning = graph.score_meaning(graph.trace(model))
    if meaning is None or not isinstance(model.output_shape, tuple):
        raise UnsupportedModelError(
            "A run judges a model by the classes it finds, so it must give one score for each of at least two classes, "
            "or for two classes a single one: a sigmoid's, or a logit, of a last layer without activation. "
            f"Received: {str(path)!r}, whose output has the shape {model.output_shape}. From Python, "
            "`keras_qat.quantize` and `keras_qat.export_onnx` take models of any output."
        )
    if any(isinstance(layer, FakeQuantize) for layer in model.layers):
        raise UserError(
            f"This model is quantized already. Received: {str(path)!r}. Give the float model that it was made from, or "
            "write this one to a file with `keras-qat export`."
        )
    return meaning
