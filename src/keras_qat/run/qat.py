"""Quantization-aware training as a run does it: from the quantized model to its best epoch, with float as teacher."""

from pathlib import Path
from typing import Any

from keras_qat import training
from keras_qat.data import ImageSet, Splits, decode_errors, find_augmentation
from keras_qat.files import write_json
from keras_qat.run.conclude import EVALUATION_BATCH
from keras_qat.run.settings import Settings
from keras_qat.run.start import epochs_of


def recipe_of(settings: Settings) -> training.Recipe:
    """The recipe that the settings of a run spell.

    Raises:
        UserError: a setting is unknown or out of range.

    Example:
        >>> recipe_of(Settings(distillation=0)).distillation is None
        True
    """
    distillation = None
    if settings.distillation != 0:
        distillation = training.Distillation(weight=settings.distillation, temperature=settings.temperature)
    return training.Recipe(
        optimizer=settings.optimizer,
        schedule=training.parse_schedule(settings.schedule),
        learning_rate=settings.learning_rate,
        epochs=settings.epochs,
        steps_per_epoch=settings.steps_per_epoch,
        batch_size=settings.batch_size,
        accumulate=settings.accumulate,
        seed=settings.seed,
        batch_norm=settings.batch_norm,
        range_mode=settings.range_mode,
        freeze_ranges_after=settings.freeze_ranges_after,
        weight_decay=settings.weight_decay,
        clip_norm=settings.clip_norm,
        distillation=distillation,
        label_smoothing=settings.label_smoothing,
        precision=settings.training_precision,
        monitor=settings.monitor,
    )


def training_folder(settings: Settings) -> Path:
    """Where the checkpoints are kept: one folder for each augmentation.

    Going back to an earlier one, a run finds its checkpoints.

    Example:
        >>> training_folder(Settings(augment="crop")).name, training_folder(Settings()).name
        ('training-crop', 'training')
    """
    return settings.folder / ("training" if settings.augment == "none" else f"training-{settings.augment}")


def train_quantized(quantized: Any, teacher: Any, data: Splits, settings: Settings) -> training.FineTuned:
    """Fine-tune; write the recipe, and checkpoints from which an interrupted run goes on.

    Args:
        quantized: from `quantize_after_training`. It is not changed.
        teacher: the float model. It is not changed.
        data: trained on its training images, the epoch chosen by its selection.
        settings: of the run; `recipe.json` and `training/`, or with an augmentation `training-crop/`, go to their
            folder.
    """
    recipe = recipe_of(settings)
    write_json(settings.folder / "recipe.json", recipe.to_dict())
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
            folder=training_folder(settings),
            data_id=f"{train_images.fingerprint()} {selection.fingerprint()}",
        )


def _shareable(images: ImageSet, batch_size: int, devices: int) -> ImageSet:
    """All images but those of a last batch that is too small for the devices."""
    count = training.shareable(len(images), batch_size, devices)
    return images if count == len(images) else images.take(count, seed=0)
