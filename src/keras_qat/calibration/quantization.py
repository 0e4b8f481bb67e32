"""Float model + images → quantized model, in one call: the stages of post-training quantization in their order.

    plan ── calibrate ── apply ── weight ranges ── bias correction

Each stage is also a public function, for callers who need another order or only some of the stages.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from keras_qat import graph, onnx, transform
from keras_qat.calibration import measure, methods, repair
from keras_qat.calibration.kernel_ranges import WeightRanges, choose_weight_ranges, find_weight_method
from keras_qat.calibration.ranges import Ranges
from keras_qat.errors import DataError
from keras_qat.placement import Overrides, plan, why_nothing
from keras_qat.types import Placement

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Quantized:
    """A quantized model, and the decisions that led to it.

    Args:
        model: An ordinary Keras model, which can be fine-tuned, saved and exported.
        placement: Where its Q/DQ pairs are, each with a reason.
        ranges: The ranges of its activations.
        weight_ranges: How far the range of each kernel's channels was narrowed; `None` if that was not requested.
        bias_correction: How far each bias was shifted; `None` if that was not requested.
    """

    model: Any
    placement: Placement
    ranges: Ranges
    weight_ranges: WeightRanges | None = field(default=None, repr=False)
    bias_correction: repair.BiasCorrection | None = field(default=None, repr=False)


def quantize(
    model: Any,
    batches: Any,
    target: str = "onnxruntime",
    *,
    overrides: Overrides | None = None,
    method: str = "mse",
    weight_method: str = "mse",
    bias_correction: bool = True,
    images: int | None = None,
) -> Quantized:
    """Quantize a trained model for an engine without training: a few hundred images choose the ranges.

    Args:
        model: The float model. It is not changed.
        batches: Images with the preprocessing of the model's training, as for `calibrate`. Labels are not needed.
        target: The engine to deploy to: `"onnxruntime"`, `"openvino"` or `"tensorrt"`.
        overrides: Rules that change the placement of the target's table.
        method: The calibration method, as for `calibrate`.
        weight_method: How the range of each output channel of a kernel is chosen: `"absmax"`, or `"mse"` for the least
            squared error.
        bias_correction: Whether to undo the shift of the mean of each layer's output that rounding causes. This reads
            the images a second time.
        images: The exact number of images to read; all by default.

    Raises:
        DataError: If there are no images, if they do not fit the model, or if they can be read only once and bias
            correction is on.
        UnsupportedModelError: If a layer can't be read, quantized or exported, which is found before an image is read,
            or if an activation is not finite. It is named.
        UserError: If there is no such target or method.

    Example:
        >>> import keras
        >>> import numpy as np
        >>> x = keras.Input((8, 8, 3), name="image")
        >>> model = keras.Model(x, keras.layers.Conv2D(4, 3, name="conv")(x))
        >>> images = np.random.default_rng(0).normal(size=(16, 8, 8, 3)).astype("float32")
        >>> quantized = quantize(model, images, "tensorrt")
        >>> float(np.abs(quantized.model.predict(images, verbose=0) - model.predict(images, verbose=0)).max()) < 0.1
        True
    """
    methods.find_observer(method)  # An unknown method is refused before the images are read.
    find_weight_method(weight_method)
    if bias_correction and isinstance(batches, Iterator):
        raise DataError(
            "The images are read twice, for the ranges and for the biases, and these can be read only once. "
            f"Received: {type(batches).__name__}. Give an array, a list or a dataset, or `bias_correction=False`."
        )
    onnx.require_exportable(model)
    placement = plan(graph.trace(model).graph, target, overrides=overrides)
    ranges = measure.calibrate(model, placement, batches, method=method, images=images)
    correction = batches if bias_correction else None
    return insert(model, placement, ranges, weight_method=weight_method, correction=correction, images=images)


def insert(
    model: Any,
    placement: Placement,
    ranges: Ranges,
    *,
    weight_method: str = "mse",
    correction: Any | None = None,
    images: int | None = None,
    total: int | None = None,
) -> Quantized:
    """Insert the fake quantization and repair what rounding shifts: the part of `quantize` that follows the ranges.

    Args:
        model: The float model. It is not changed.
        placement: The placement, from `plan`.
        ranges: The ranges, from `calibrate`.
        weight_method: As for `quantize`.
        correction: Images for bias correction. Without them the biases are not corrected.
        images: The exact number of those images to read; all by default.
        total: The number of their batches, for the progress bar, if the data cannot tell it.

    Raises:
        DataError: If there are no images, or if they do not fit the model.
        UserError: If there is no such method, or if a quantized tensor has no range.
    """
    nothing = why_nothing(placement)
    if nothing is not None:
        _logger.warning(nothing)
    quantized = transform.apply_placement(model, placement, ranges)
    narrowed = None if weight_method == "absmax" else choose_weight_ranges(quantized, weight_method)
    if narrowed is not None:
        quantized = narrowed.model
    if correction is None:
        return Quantized(quantized, placement, ranges, narrowed)
    corrected = repair.correct_bias(model, quantized, correction, images=images, total=total)
    return Quantized(corrected.model, placement, ranges, narrowed, corrected)
