"""Is one model better than another? Exact statistics of two models' answers to the same images.

**The interval of a share.** The 95% interval of x of n is Wilson's ("Probable inference, the law of succession, and
statistical inference", JASA 22, 1927, 209-212): all shares p that a test of x against p does not reject,

    |x / n - p| <= z sqrt(p (1 - p) / n),   z = 1.96

Unlike x / n ± z · standard error it stays within 0 and 1, and it is not empty at either end.

**The comparison.** Both models saw the same images, so each image is a pair of answers. Of n images, both are right on
a, only the first on b, only the second on c, and both are wrong on d. The difference of their accuracies is
(b - c) / n; a and d say nothing about it.

- McNemar's test, exact ("Note on the sampling error of the difference between correlated proportions or percentages",
  Psychometrika 12, 1947, 153-157): if both were equally good, an image on which they differ would favour either with
  probability 1/2, so b of b + c is binomial. p is the probability of a split at least as uneven.
- The interval of the difference is that of Agresti and Min ("Simple improved confidence intervals for comparing matched
  proportions", Statistics in Medicine 24, 2005, 729-740): Wald's interval after 1/2 is added to each of a, b, c and d:

      δ = (b' - c') / n',   δ ± z sqrt(b' + c' - (b' - c')² / n') / n',   b' = b + 1/2, c' = c + 1/2, n' = n + 2.

  By enumeration it contains the true difference in 94.7% to 96.5% of cases, and in more where the two models are
  expected to differ on fewer than five images.

Test and interval are different approximations of the same question and may disagree at the border; the test decides.
"""

from dataclasses import dataclass
from math import sqrt
from typing import Any

import numpy as np
from scipy.stats import binomtest, norm

from keras_qat.errors import DataError
from keras_qat.evaluation.predictions import Predictions

CONFIDENCE = 0.95
SIGNIFICANCE = 1 - CONFIDENCE


@dataclass(frozen=True)
class Proportion:
    """A share of images.

    Args:
        count: The number of images counted.
        images: The number of all images.
        low: The lower end of the 95% interval of the share, 0 to 1.
        high: The upper end.
    """

    count: int
    images: int
    low: float
    high: float

    @property
    def value(self) -> float:
        """The share, 0 to 1."""
        return self.count / self.images

    def to_dict(self) -> dict[str, float]:
        """Return the share, its interval and its counts as JSON types."""
        return {"value": self.value, "low": self.low, "high": self.high, "count": self.count, "images": self.images}


def proportion(count: int, images: int) -> Proportion:
    """Return a share with its 95% interval.

    Args:
        count: The number of images counted.
        images: The number of all images.

    Raises:
        DataError: If there are no images, or if `count` is not from 0 to `images`.

    Example:
        >>> share = proportion(90, 100)
        >>> share.value, round(share.low, 3), round(share.high, 3)
        (0.9, 0.826, 0.945)
    """
    if not (0 <= count <= images and images > 0):
        raise DataError(
            "A share needs at least one image, and a count from 0 to the number of images. "
            f"Received: {count} of {images}. Give at least one image."
        )
    interval = binomtest(count, images).proportion_ci(CONFIDENCE, method="wilson")
    return Proportion(count, images, float(interval.low), float(interval.high))


@dataclass(frozen=True)
class Comparison:
    """The answers of two models to the same images.

    Args:
        agreement: The images for which both have the same best class, right or wrong.
        both_right: The number of images on which both are right.
        only_first: The number of images on which only the first is right.
        only_second: The number of images on which only the second is right.
        both_wrong: The number of images on which both are wrong, with the same class or not.
        difference: The accuracy of the first minus that of the second, -1 to 1.
        low: The lower end of the 95% interval of the difference.
        high: The upper end.
        p_value: The p of McNemar's exact two-sided test of equal accuracies.
    """

    agreement: Proportion
    both_right: int
    only_first: int
    only_second: int
    both_wrong: int
    difference: float
    low: float
    high: float
    p_value: float

    @property
    def shown(self) -> bool:
        """Whether the test shows a difference: p is below 5%."""
        return self.p_value < SIGNIFICANCE

    def to_dict(self) -> dict[str, Any]:
        """Return all figures as JSON types."""
        return {
            "agreement": self.agreement.to_dict(),
            "both_right": self.both_right,
            "only_first_right": self.only_first,
            "only_second_right": self.only_second,
            "both_wrong": self.both_wrong,
            "difference": {"value": self.difference, "low": self.low, "high": self.high},
            "mcnemar_p": self.p_value,
            "difference_shown": self.shown,
        }


def compare(first: Predictions, second: Predictions) -> Comparison:
    """Compare the top-1 answers of two models, image by image.

    Args:
        first: The predictions of one model.
        second: The predictions of the other, on the same images in the same order.

    Raises:
        DataError: If the predictions were not made on the same images, if there are no images, or if the images have no
            labels. `Predictions.agreement` compares predictions on images without labels.

    Example:
        >>> labels = np.array([0, 0, 1, 1])
        >>> better, worse = (Predictions(np.array(c)[:, None], labels) for c in ([0, 0, 1, 1], [0, 1, 1, 0]))
        >>> comparison = compare(better, worse)
        >>> comparison.difference, comparison.p_value, comparison.shown
        (0.5, 0.5, False)
    """
    agreeing = first.agreeing(second)
    x, y = first.right(), second.right()
    n, b, c = len(x), int(np.sum(x & ~y)), int(np.sum(y & ~x))
    agreement = proportion(int(np.sum(agreeing)), n)
    low, high = difference_interval(b, c, n)
    return Comparison(
        agreement=agreement,
        both_right=int(np.sum(x & y)),
        only_first=b,
        only_second=c,
        both_wrong=int(np.sum(~x & ~y)),
        difference=(b - c) / n,
        low=low,
        high=high,
        p_value=mcnemar(b, c),
    )


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the p of McNemar's exact two-sided test; 1 if the two never differ.

    Example:
        >>> mcnemar(1, 9) == 2 * (1 + 10) / 2**10
        True
    """
    differing = only_first + only_second
    return float(binomtest(only_first, differing, 0.5).pvalue) if differing else 1.0


def difference_interval(only_first: int, only_second: int, images: int) -> tuple[float, float]:
    """Return the 95% interval of the difference of two accuracies, by Agresti and Min.

    Args:
        only_first: The number of images on which only the first model is right.
        only_second: The number of images on which only the second model is right.
        images: The number of all images.

    Returns:
        The ends of the interval, -1 to 1.

    Example:
        >>> low, high = difference_interval(5, 5, 1000)
        >>> round(low, 4), round(high, 4)
        (-0.0065, 0.0065)
    """
    b, c, n = only_first + 0.5, only_second + 0.5, images + 2
    half = norm.ppf((1 + CONFIDENCE) / 2) * sqrt(b + c - (b - c) ** 2 / n) / n
    return max(-1.0, float((b - c) / n - half)), min(1.0, float((b - c) / n + half))
