"""Post-training quantization as a run does it: ranges, from the cache or the images, and what repairs the rest."""

import logging
from typing import Any

import numpy as np

from keras_qat.calibration import (
    Ranges,
    cached_ranges,
    calibrate,
    choose_weight_ranges,
    correct_bias,
    digest,
    ranges_key,
)
from keras_qat.data import ImageSet
from keras_qat.placement import explain
from keras_qat.settings import Settings
from keras_qat.storage import write_json, write_text
from keras_qat.transform import apply_placement
from keras_qat.types import Placement

_logger = logging.getLogger(__name__)

_CORRECTION_IMAGES = 128
"""A mean over all pixels of that many images is known well enough."""

_CORRECTION_BATCH = 32


def quantize_after_training(model: Any, placement: Placement, train: ImageSet, settings: Settings) -> Any:
    """Choose the ranges, insert the fake quantization, repair what the settings say; write what was done.

    Args:
        model: the float model. It is not changed.
        placement: from `plan`.
        train: images to choose from.
        settings: of the run; `placement.md`, `ranges.json` and a report of each repair go to their folder.

    Returns:
        The quantized model.
    """
    images = train.take(settings.calibration_images, settings.seed)
    if len(images) < settings.calibration_images:
        _logger.warning("Calibrating with %d images: the training set has no more.", len(images))
    ranges = _ranges(model, placement, images, settings)
    write_text(settings.folder / "placement.md", explain(placement, ranges=ranges) + "\n")
    ranges.save(settings.folder / "ranges.json")
    quantized = apply_placement(model, placement, ranges)
    if settings.weight_method != "absmax":
        quantized = _choose_weight_ranges(quantized, settings)
    return _correct_bias(model, quantized, train, settings) if settings.bias_correction else quantized


def _ranges(model: Any, placement: Placement, images: ImageSet, settings: Settings) -> Ranges:
    """The ranges of all quantized tensors, from the cache if they are there."""
    size, method = settings.batch_size, settings.calibration_method

    def compute() -> Ranges:
        return calibrate(model, placement, images.arrays(size), method=method, total=images.steps(size))

    if not settings.use_cache:
        return compute()
    # The images themselves, prepared: a folder can change under the same name, and reading is quick beside calibrating.
    data = {"images": digest(x for x, _ in images.arrays(size)), "batch_size": size}
    return cached_ranges(ranges_key(model, placement, data, method, len(images)), compute)


def _correct_bias(model: Any, quantized: Any, train: ImageSet, settings: Settings) -> Any:
    images = train.take(min(settings.calibration_images, _CORRECTION_IMAGES), settings.seed)
    size = min(settings.batch_size, _CORRECTION_BATCH)
    correction = correct_bias(model, quantized, images.arrays(size), total=images.steps(size))
    report = {
        "images": correction.images,
        "largest_shift": {layer: float(np.abs(shift).max()) for layer, shift in correction.shifts.items()},
        "skipped": dict(correction.skipped),
    }
    write_json(settings.folder / "bias_correction.json", report)
    return correction.model


def _choose_weight_ranges(quantized: Any, settings: Settings) -> Any:
    chosen = choose_weight_ranges(quantized, settings.weight_method)
    report = {layer: {"least": float(k.min()), "mean": float(k.mean())} for layer, k in chosen.kept.items()}
    write_json(settings.folder / "weight_ranges.json", report)
    return chosen.model
