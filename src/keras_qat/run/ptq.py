"""Post-training quantization as a run does it: ranges, from the cache or the images, and what repairs the rest."""

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_qat import calibration
from keras_qat.data import ImageSet
from keras_qat.run.folder import RunFolder
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
        settings: of the run. Placement, ranges and a report of each repair are written to their folder.

    Returns:
        The quantized model.
    """
    folder, options = RunFolder(settings.folder), settings.calibration
    images = train.take(options.calibration_images, settings.seed)
    if len(images) < options.calibration_images:
        _logger.warning("Calibrating with %d images: the training set has no more.", len(images))
    ranges = _ranges(model, placement, images, settings)
    folder.write_ranges(placement, ranges)
    quantized = _insert(model, placement, ranges, train, settings)
    folder.write_repairs(*_repairs(quantized))
    return quantized.model


def _ranges(model: Any, placement: Placement, images: ImageSet, settings: Settings) -> calibration.Ranges:
    """The ranges of all quantized tensors, from the cache if they are there."""
    options = settings.calibration
    size, method = options.calibration_batch_size, options.calibration_method

    def compute() -> calibration.Ranges:
        return calibration.calibrate(model, placement, images.arrays(size), method=method, total=images.steps(size))

    if not options.use_cache:
        return compute()
    # The images themselves, prepared: a folder can change under the same name, and reading is quick beside calibrating.
    data = {"images": calibration.digest(x for x, _ in images.arrays(size)), "batch_size": size}
    return calibration.cached_ranges(calibration.ranges_key(model, placement, data, method, len(images)), compute)


def _insert(
    model: Any, placement: Placement, ranges: calibration.Ranges, train: ImageSet, settings: Settings
) -> calibration.Quantized:
    options = settings.calibration
    if not options.bias_correction:
        return calibration.insert(model, placement, ranges, weight_method=options.weight_method)
    images = train.take(min(options.calibration_images, _CORRECTION_IMAGES), settings.seed)
    size = min(options.calibration_batch_size, _CORRECTION_BATCH)
    return calibration.insert(
        model,
        placement,
        ranges,
        weight_method=options.weight_method,
        correction=images.arrays(size),
        total=images.steps(size),
    )


def _repairs(quantized: calibration.Quantized) -> tuple[Mapping[str, Any] | None, Mapping[str, Any] | None]:
    """What was repaired, as JSON can hold it: the ranges of kernels, and the means of outputs."""
    kernels, biases = quantized.weight_ranges, quantized.bias_correction
    kept = None
    if kernels is not None:
        kept = {layer: {"least": float(k.min()), "mean": float(k.mean())} for layer, k in kernels.kept.items()}
    corrected = None
    if biases is not None:
        corrected = {
            "images": biases.images,
            "largest_shift": {layer: float(np.abs(shift).max()) for layer, shift in biases.shifts.items()},
            "skipped": dict(biases.skipped),
        }
    return kept, corrected
