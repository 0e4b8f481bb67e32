"""Histograms of magnitudes whose range grows by doubling: one pass, constant memory, independent of batch order.

The range of a histogram is always a power of two, [0, 2^k). To merge two of different k, neighbouring bins of the
smaller one are added up pairwise until the ranges agree, which is exact. So the counts depend on the data alone, not on
the batches it came in.
"""

from dataclasses import dataclass, field

import numpy as np

BINS = 4096
"""At least 2048 bins below the largest magnitude: 8 for each step of an unsigned 8-bit grid."""


@dataclass(frozen=True)
class Histogram:
    """How often each magnitude occurred.

    Args:
        exponent: k; the bins split [0, 2^k) evenly.
        counts: int64, shape (BINS,).
        amax: the largest magnitude, exactly.
    """

    exponent: int
    counts: np.ndarray = field(repr=False)
    amax: float

    @property
    def width(self) -> float:
        """The width of a bin."""
        return float(2.0**self.exponent / len(self.counts))

    @property
    def centres(self) -> np.ndarray:
        """The middle of each bin, float64, shape (BINS,)."""
        return (np.arange(len(self.counts)) + 0.5) * self.width

    @staticmethod
    def empty() -> "Histogram":
        """The histogram of nothing, which merges into any other."""
        return Histogram(exponent=-1000, counts=np.zeros(BINS, np.int64), amax=0.0)

    @staticmethod
    def of(x: np.ndarray) -> "Histogram":
        """The histogram of an array of any shape, in NumPy.

        Example:
            >>> Histogram.of(np.array([0.5, -3.0])).exponent
            2
        """
        magnitudes = np.abs(np.asarray(x, np.float64)).ravel()
        amax = float(magnitudes.max(initial=0.0))
        exponent = exponent_of(amax)
        index = np.minimum((magnitudes * (BINS / 2.0**exponent)).astype(np.int64), BINS - 1)
        return Histogram(exponent, np.bincount(index, minlength=BINS), amax)


def exponent_of(amax: float) -> int:
    """The least k with amax < 2^k; a very small one for zero."""
    return int(np.frexp(max(amax, SMALLEST))[1])


SMALLEST = 2.0**-100
"""Magnitudes below this count as this."""


def merge(a: Histogram, b: Histogram) -> Histogram:
    """The histogram of all the data in `a` and `b`.

    Example:
        >>> both = merge(Histogram.of(np.array([1.0])), Histogram.of(np.array([7.0])))
        >>> both.exponent, int(both.counts.sum())
        (3, 2)
    """
    exponent = max(a.exponent, b.exponent)
    return Histogram(exponent, _widen(a, exponent) + _widen(b, exponent), max(a.amax, b.amax))


def _widen(histogram: Histogram, exponent: int) -> np.ndarray:
    """The counts over the range [0, 2^exponent)."""
    doublings = exponent - histogram.exponent
    bins = len(histogram.counts)
    if 2**doublings >= bins:
        widened = np.zeros_like(histogram.counts)
        widened[0] = histogram.counts.sum()
        return widened
    merged = histogram.counts.reshape(-1, 2**doublings).sum(axis=1)
    return np.pad(merged, (0, bins - len(merged)))
