"""Float model + images → quantized model, in one call: the stages of post-training quantization in their order.

    plan ── calibrate ── apply ── weight ranges ── bias correction

Each is a function of its own, for whoever wants another order or only some of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from keras_qat.calibration.measure import calibrate
from keras_qat.calibration.methods import find_observer
from keras_qat.calibration.ranges import Ranges
from keras_qat.calibration.repair import BiasCorrection, correct_bias
from keras_qat.calibration.weight_ranges import WeightRanges, choose_weight_ranges, find_weight_method
from keras_qat.errors import DataError
from keras_qat.graph import trace
from keras_qat.placement import Overrides, plan
from keras_qat.transform import apply_placement
from keras_qat.types import Placement


@dataclass(frozen=True)
class Quantized:
    """A quantized model, and what was decided on the way.

    Args:
        model: an ordinary Keras model: fine-tune it, save it, export it.
        placement: where its Q/DQ pairs are, each with its reason.
        ranges: of its activations.
        weight_ranges: how far the range of each kernel's channels was narrowed; `None` if it wasn't asked for.
        bias_correction: how far each bias was shifted; `None` if it wasn't asked for.
    """

    model: Any
    placement: Placement
    ranges: Ranges
    weight_ranges: WeightRanges | None = field(default=None, repr=False)
    bias_correction: BiasCorrection | None = field(default=None, repr=False)


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
    """Quantize a trained model for an engine, with nothing trained: a few hundred images choose the ranges.

    Args:
        model: the float model. It is not changed.
        batches: images with the preprocessing of the model's training, as for `calibrate`; labels aren't needed.
        target: the engine to deploy to: `"onnxruntime"`, `"openvino"` or `"tensorrt"`.
        overrides: what to place otherwise than the target's table.
        method: of calibration, as for `calibrate`.
        weight_method: the range of each output channel of a kernel: `"absmax"`, or `"mse"`, with the least squared
            error.
        bias_correction: take back the shift that rounding puts on the mean of each layer's output. Reads the images
            once more.
        images: take exactly so many images; all if not given.

    Raises:
        DataError: there are no images, they don't fit the model, or can be read only once and bias correction is on.
        UnsupportedModelError: a layer can't be quantized, or an activation isn't finite; it is named.
        UserError: the target or a method is unknown.

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
    find_observer(method)
    find_weight_method(weight_method)
    if bias_correction and isinstance(batches, Iterator):
        raise DataError(
            "The images are read twice, for the ranges and for the biases, and these can be read only once. "
            f"Received: {type(batches).__name__}. Give an array, a list or a dataset, or `bias_correction=False`."
        )
    placement = plan(trace(model).graph, target, overrides=overrides)
    ranges = calibrate(model, placement, batches, method=method, images=images)
    corrected_on = batches if bias_correction else None
    return insert(model, placement, ranges, weight_method=weight_method, correction=corrected_on, images=images)


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
    """The part of `quantize` behind the ranges: insert the fake quantization, then repair what rounding moved.

    Args:
        model: the float model. It is not changed.
        placement: from `plan`.
        ranges: from `calibrate`.
        weight_method: as for `quantize`.
        correction: images for bias correction; without, biases stay.
        images: take exactly so many of those.
        total: number of batches, for the progress bar.
    """
    quantized = apply_placement(model, placement, ranges)
    narrowed = None if weight_method == "absmax" else choose_weight_ranges(quantized, weight_method)
    if narrowed is not None:
        quantized = narrowed.model
    if correction is None:
        return Quantized(quantized, placement, ranges, narrowed)
    corrected = correct_bias(model, quantized, correction, images=images, total=total)
    return Quantized(corrected.model, placement, ranges, narrowed, corrected)
