"""A share of images with its 95% interval.

The interval of x of n is Wilson's: all shares p that a test of x against p doesn't reject,

    |x / n - p| <= z sqrt(p (1 - p) / n),   z = 1.96

(Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22, 1927, 209-212). Unlike
x / n ± z · standard error it stays within 0 and 1, and isn't empty at either end.
"""

from dataclasses import dataclass

from scipy.stats import binomtest

from keras_qat.errors import DataError

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
