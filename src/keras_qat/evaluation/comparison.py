"""A share of images with its 95% interval.

The interval of x of n is Wilson's: all shares p that a test of x against p doesn't reject,

    |x / n - p| <= z sqrt(p (1 - p) / n),   z = 1.96

(Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22, 1927, 209-212). Unlike
x / n ± z · standard error it stays within 0 and 1, and isn't empty at either end.

Is one model better than another? Both saw the same images, so each image is a pair of answers.

Of n images both are right on a, only the first on b, only the second on c, both wrong on d. The difference of their
accuracies is (b - c) / n; a and d say nothing about it.

- McNemar's test, exact ("Note on the sampling error of the difference between correlated proportions or percentages",
  Psychometrika 12, 1947, 153-157): were both equally good, an image on which they differ would favour either with
  chance 1/2, so b of b + c is binomial. p is the chance of a split at least as uneven.
- The interval of the difference is Agresti's and Min's ("Simple improved confidence intervals for comparing matched
  proportions", Statistics in Medicine 24, 2005, 729-740): Wald's, after 1/2 is added to each of a, b, c and d:

      δ = (b' - c') / n',   δ ± z sqrt(b' + c' - (b' - c')² / n') / n',   b' = b + 1/2, c' = c + 1/2, n' = n + 2.

  It holds the true difference in 94.7% to 96.5% of cases, as enumeration shows, and in more where the two are expected
  to differ on fewer than five images.

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


@dataclass(frozen=True)
class Proportion:
    """Some of all images.

    Args:
        count: how many.
        images: of how many.
        low: the lower end of the 95% interval of the share, 0 to 1.
        high: the upper end.
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
        """The share, its interval and its counts as JSON can hold them."""
        return {"value": self.value, "low": self.low, "high": self.high, "count": self.count, "images": self.images}


def proportion(count: int, images: int) -> Proportion:
    """The share with its interval.

    Args:
        count: how many.
        images: of how many.

    Raises:
        DataError: not 0 <= count <= images, or no images.

    Example:
        >>> found = proportion(90, 100)
        >>> found.value, round(found.low, 3), round(found.high, 3)
        (0.9, 0.826, 0.945)
    """
    if not (0 <= count <= images and images > 0):
        raise DataError(
            f"A share needs images, and counts some of them. Received: {count} of {images}. Give at least one image."
        )
    interval = binomtest(count, images).proportion_ci(CONFIDENCE, method="wilson")
    return Proportion(count, images, float(interval.low), float(interval.high))


SIGNIFICANCE = 1 - CONFIDENCE


@dataclass(frozen=True)
class Comparison:
    """The answers of two models to the same images.

    Args:
        agreement: the images to which both give the same best class, right or wrong.
        both_right: images; likewise the next three.
        only_first: right where the second is wrong.
        only_second: right where the first is wrong.
        both_wrong: whatever they say.
        difference: accuracy of the first less that of the second, -1 to 1.
        low: the lower end of its 95% interval.
        high: the upper end.
        p_value: of McNemar's exact test of equal accuracies, two-sided.
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
        """Whether the test shows a difference: p is under 5%."""
        return self.p_value < SIGNIFICANCE

    def to_dict(self) -> dict[str, Any]:
        """All figures as JSON can hold them."""
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
        first: its predictions.
        second: those of the other, on the same images in the same order.

    Raises:
        DataError: the two were not made on the same images, on none, or on images without labels, of which
            `Predictions.agreement` says all that there is.

    Example:
        >>> labels = np.array([0, 0, 1, 1])
        >>> better, worse = (Predictions(np.array(c)[:, None], labels) for c in ([0, 0, 1, 1], [0, 1, 1, 0]))
        >>> found = compare(better, worse)
        >>> found.difference, found.p_value, found.shown
        (0.5, 0.5, False)
    """
    agreeing = first.agreeing(second)
    one, other = first.right(), second.right()
    n, b, c = len(one), int(np.sum(one & ~other)), int(np.sum(other & ~one))
    agreement = proportion(int(np.sum(agreeing)), n)
    low, high = difference_interval(b, c, n)
    return Comparison(
        agreement=agreement,
        both_right=int(np.sum(one & other)),
        only_first=b,
        only_second=c,
        both_wrong=int(np.sum(~one & ~other)),
        difference=(b - c) / n,
        low=low,
        high=high,
        p_value=mcnemar(b, c),
    )


def mcnemar(only_first: int, only_second: int) -> float:
    """The p of McNemar's exact two-sided test; 1 where the two never differ.

    Example:
        >>> mcnemar(1, 9) == 2 * (1 + 10) / 2**10
        True
    """
    differing = only_first + only_second
    return float(binomtest(only_first, differing, 0.5).pvalue) if differing else 1.0


def difference_interval(only_first: int, only_second: int, images: int) -> tuple[float, float]:
    """The 95% interval of the difference of two accuracies, by Agresti and Min.

    Args:
        only_first: images on which only the first is right.
        only_second: likewise.
        images: all of them.

    Returns:
        Its ends, -1 to 1.

    Example:
        >>> low, high = difference_interval(5, 5, 1000)
        >>> round(low, 4), round(high, 4)
        (-0.0065, 0.0065)
    """
    b, c, n = only_first + 0.5, only_second + 0.5, images + 2
    half = norm.ppf((1 + CONFIDENCE) / 2) * sqrt(b + c - (b - c) ** 2 / n) / n
    return max(-1.0, float((b - c) / n - half)), min(1.0, float((b - c) / n + half))
