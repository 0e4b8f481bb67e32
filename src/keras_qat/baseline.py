"""The float model of the embedded digits, trained here and cached, and the epochs it is trained in."""

import hashlib
import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import platformdirs

from keras_qat.data import Augmentation, ImageSet, Splits
from keras_qat.export import export_keras
from keras_qat.settings import Settings
from keras_qat.training import train_baseline
from keras_qat.zoo import ZooEntry, build_model

_logger = logging.getLogger(__name__)

DIGITS = "digits"
DIGITS_SIZE = 32
"""The smallest input the ResNets of `keras.applications` take."""

_EPOCHS = 8
_BATCH_SIZE = 32


def digits_baseline(settings: Settings, entry: ZooEntry, data: Splits) -> Any:
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
    model = build_model(entry, weights=None, num_classes=data.num_classes, size=data.train.preprocessing.size)
    _logger.info("Training the float baseline of %s on digits, once; it is kept in %s.", entry.name, path)
    train, selection = (_unrounded(images) for images in (data.train, data.selection))
    trained = train_baseline(
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
