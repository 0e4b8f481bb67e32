"""How good one output of one model is, in figures that have names, with their 95% intervals.

A figure that is the mean of one value for each image has the interval of Student's t over the images,

    m ± t · s / √n,   m = (1/n) Σ vᵢ,   s² = Σ (vᵢ - m)² / (n - 1),   t: the 97.5% point of n - 1 degrees of freedom,

where vᵢ is the value of image i. It needs at least two images. The difference of two models is computed image by
image: the same formula with vᵢ = aᵢ - bᵢ, which leaves out what makes an image hard for both. Shares of images (top-1,
top-5, agreement of a classifier) have Wilson's interval, and their difference that of Agresti and Min.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import sqrt
from typing import Any

import numpy as np
from scipy.stats import t

from keras_qat.evaluation.comparison import CONFIDENCE
from keras_qat.files import to_json_value
from keras_qat.types import TaskKind

EQUAL_DB = 200.0
"""The SQNR of equal numbers, and the largest that is reported."""


@dataclass(frozen=True)
class Figure:
    """A number, with its interval if it has one.

    Args:
        value: The number; `None` if it isn't defined, as where an output isn't finite.
        low: The lower end of its 95% interval; `None` if it has none.
        high: The upper end.
    """

    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class OutputScores:
    """The figures of one output of one model.

    Against labels, if there are any:

    - classification: `top1`, `top5`: shares of images;
    - segmentation: `mean_iou`, the mean over the classes of TP / (TP + FP + FN), counted over the positions of all
      images; `image_iou`, the mean over the images of the same number of each image; `pixel_accuracy`, the share of all
      positions. A class that neither labels nor model have isn't in a mean;
    - regression: `mae`, the mean absolute error, and `rmse`, the root of the mean squared error.

    Against another model, if there is one:

    - classification: `agreement`, the share of images with the same best class; `sqnr` of the scores of the first 256
      images, in dB;
    - segmentation: `agreement`, the share of positions with the same class; `model_iou`, the mean IoU with the other
      model's classes in the place of labels;
    - regression: `sqnr` in dB, `mean_error` and `largest_error`, both absolute, and `cosine`, the mean over the images
      of the cosine between the two outputs.

    Args:
        output: The name of the output.
        kind: What it says.
        images: The number of images.
        figures: The figures by name; those without labels or without another model are absent.
        differences: This model's value minus the other's, image by image, for figures that are means over images:
            `top1`, `image_iou`, `mae`.
    """

    output: str
    kind: TaskKind
    images: int
    figures: Mapping[str, Figure] = field(default_factory=dict)
    differences: Mapping[str, Figure] = field(default_factory=dict)

    def value(self, name: str) -> float | None:
        """Return the number of a figure; `None` if it is absent or not defined.

        Example:
            >>> scores = OutputScores("box", "regression", 10, {"mae": Figure(0.5)})
            >>> scores.value("mae"), scores.value("sqnr")
            (0.5, None)
        """
        return self.figures[name].value if name in self.figures else None

    def to_dict(self) -> dict[str, Any]:
        """Return all figures as JSON types."""
        return dict(to_json_value(self))


def mean_figure(values: np.ndarray, bounds: tuple[float, float] = (-np.inf, np.inf)) -> Figure:
    """Return the mean of one value for each image, with its t interval.

    Args:
        values: Shape (images,). NaN stands for an image without a value, which isn't counted.
        bounds: The least and the greatest number that such a value can be, which the interval doesn't pass.

    Returns:
        The figure; without a value if there is no image with one, or if a value is infinite, and without an interval if
        there is only one.

    Example:
        >>> figure = mean_figure(np.array([1.0, 2.0, 3.0]))
        >>> figure.value, round(figure.low, 3), round(figure.high, 3)
        (2.0, -0.484, 4.484)
    """
    counted = np.asarray(values, np.float64)
    counted = counted[~np.isnan(counted)]
    n = len(counted)
    if not n or not np.isfinite(counted).all():
        return Figure(None)
    mean = float(counted.mean())
    if n == 1:
        return Figure(mean)
    half = float(t.ppf((1 + CONFIDENCE) / 2, n - 1)) * float(counted.std(ddof=1)) / sqrt(n)
    return Figure(mean, max(mean - half, bounds[0]), min(mean + half, bounds[1]))


def decibels(signal: float, noise: float) -> float | None:
    """Return 10 log₁₀ (signal / noise), at most 200 dB.

    Args:
        signal: Σ r².
        noise: Σ (r - x)².

    Returns:
        The ratio in dB, 200 if both are equal, and `None` if the noise isn't finite, or there is noise and no signal.

    Example:
        >>> decibels(100.0, 1.0), decibels(0.0, 0.0), decibels(0.0, 1.0)
        (20.0, 200.0, None)
    """
    if noise == 0:
        return EQUAL_DB
    if not (np.isfinite(noise) and np.isfinite(signal) and signal > 0):
        return None
    return min(10 * float(np.log10(signal / noise)), EQUAL_DB)
