"""Post-training quantization as a run does it: ranges, from the cache or the images, and what repairs the rest."""

import logging
from typing import Any

import numpy as np

from keras_qat import calibration
from keras_qat.data import ImageSet
from keras_qat.files import write_json, write_text
from keras_qat.placement import PLACEMENT_FILE, explain, save_placement
from keras_qat.run.settings import Settings
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
        settings: of the run; `placement.md`, `placement.json`, `ranges.json` and a report of each repair go to their
            folder.

    Returns:
        The quantized model.
    """
    images = train.take(settings.calibration_images, settings.seed)
    if len(images) < settings.calibration_images:
        _logger.warning("Calibrating with %d images: the training set has no more.", len(images))
    ranges = _ranges(model, placement, images, settings)
    write_text(settings.folder / "placement.md", explain(placement, ranges=ranges) + "\n")
    ranges.save(settings.folder / "ranges.json")
    save_placement(placement, settings.folder / PLACEMENT_FILE)
    quantized = _insert(model, placement, ranges, train, settings)
    _report_repairs(quantized, settings)
    return quantized.model


def _ranges(model: Any, placement: Placement, images: ImageSet, settings: Settings) -> calibration.Ranges:
    """The ranges of all quantized tensors, from the cache if they are there."""
    size, method = settings.batch_size, settings.calibration_method

    def compute() -> calibration.Ranges:
        return calibration.calibrate(model, placement, images.arrays(size), method=method, total=images.steps(size))

    if not settings.use_cache:
        return compute()
    # The images themselves, prepared: a folder can change under the same name, and reading is quick beside calibrating.
    data = {"images": calibration.digest(x for x, _ in images.arrays(size)), "batch_size": size}
    return calibration.cached_ranges(calibration.ranges_key(model, placement, data, method, len(images)), compute)


def _insert(
    model: Any, placement: Placement, ranges: calibration.Ranges, train: ImageSet, settings: Settings
) -> calibration.Quantized:
    if not settings.bias_correction:
        return calibration.insert(model, placement, ranges, weight_method=settings.weight_method)
    images = train.take(min(settings.calibration_images, _CORRECTION_IMAGES), settings.seed)
    size = min(settings.batch_size, _CORRECTION_BATCH)
    batches, total = images.arrays(size), images.steps(size)
    return calibration.insert(
        model, placement, ranges, weight_method=settings.weight_method, correction=batches, total=total
    )


def _report_repairs(quantized: calibration.Quantized, settings: Settings) -> None:
    narrowed, corrected = quantized.weight_ranges, quantized.bias_correction
    if narrowed is not None:
        kept = {layer: {"least": float(k.min()), "mean": float(k.mean())} for layer, k in narrowed.kept.items()}
        write_json(settings.folder / "weight_ranges.json", kept)
    if corrected is not None:
        report = {
            "images": corrected.images,
            "largest_shift": {layer: float(np.abs(shift).max()) for layer, shift in corrected.shifts.items()},
            "skipped": dict(corrected.skipped),
        }
        write_json(settings.folder / "bias_correction.json", report)
