"""Quantization-aware training as a run does it: from the quantized model to its best epoch, with float as teacher."""

from typing import Any

from keras_qat import training
from keras_qat.data import ImageSet, Splits, decode_errors, find_augmentation
from keras_qat.run.conclude import EVALUATION_BATCH
from keras_qat.run.folder import RunFolder
from keras_qat.run.settings import Settings
from keras_qat.run.start import epochs_of


def train_quantized(quantized: Any, teacher: Any, data: Splits, settings: Settings) -> training.FineTuned:
    """Fine-tune; write the recipe, and checkpoints from which an interrupted run goes on.

    Args:
        quantized: from `quantize_after_training`. It is not changed.
        teacher: the float model. It is not changed.
        data: trained on its training images, the epoch chosen by its selection.
        settings: of the run; `recipe.json` and `training/`, or with an augmentation `training-crop/`, go to their
            folder.
    """
    folder, recipe = RunFolder(settings.folder), settings.recipe
    folder.write_recipe(recipe)
    devices = training.find_devices(settings.devices)
    training.require_device_recipe(recipe, devices)
    train_images = _shareable(data.train, recipe.batch_size, len(devices))
    selection = _shareable(data.selection, EVALUATION_BATCH, len(devices))
    train = epochs_of(train_images, recipe.batch_size, recipe.seed, find_augmentation(settings.augment))
    with decode_errors(), training.device_scope(devices):
        return training.fine_tune(
            quantized,
            train,
            selection.batches(EVALUATION_BATCH),
            recipe,
            teacher=teacher,
            folder=folder.checkpoints(settings.augment),
            data_id=f"{train_images.fingerprint()} {selection.fingerprint()}",
        )


def _shareable(images: ImageSet, batch_size: int, devices: int) -> ImageSet:
    """All images but those of a last batch that is too small for the devices."""
    count = training.shareable(len(images), batch_size, devices)
    return images if count == len(images) else images.take(count, seed=0)
