"""Histograms of magnitudes over the bins of float32 itself: one pass, constant memory, independent of batch order.

A float32 is a sign, an exponent of 8 bits and a mantissa of 23. Without its sign and its lowest 15 bits it is the
number of its bin:

    b(x) = bits(|x|) >> 15

which makes 256 bins of every power of two. They are the same for all tensors and batches, so nothing need be known of
the range beforehand and nothing is binned again when it grows: counts add up. So the histogram depends on the data
alone, to the last bit, whatever the batches, their order, the backend or the device.

At the top of the range, where bins are widest, a bin is at most one step of an unsigned 8-bit grid wide, at an eighth
of the range an eighth of a step. Methods take the numbers of a bin as spread evenly over it.

Histogram → the numbers that say, and the bars that show, what a tensor's magnitudes look like.
"""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

DROPPED_BITS = 15
"""The lowest bits of the mantissa, which don't tell bins apart."""

BINS = 0x7F80_0000 >> DROPPED_BITS
"""Bins of all finite magnitudes; infinity is the first bin after them."""

EDGES = np.append((np.arange(BINS, dtype=np.uint32) << DROPPED_BITS).view(np.float32).astype(np.float64), 2.0**128)
"""Bin b holds EDGES[b] <= |x| < EDGES[b + 1]. Float64, shape (BINS + 1,)."""


@dataclass(frozen=True)
class Histogram:
    """How often each magnitude occurred.

    Args:
        counts: int64, shape (BINS,); shape (0,) where only the largest magnitude was asked for.
        amax: the largest magnitude, exactly.
    """

    counts: np.ndarray = field(repr=False)
    amax: float

    @staticmethod
    def empty() -> "Histogram":
        """The histogram of nothing, which merges into any other that has counts."""
        return Histogram(np.zeros(BINS, np.int64), 0.0)

    @staticmethod
    def of(x: np.ndarray) -> "Histogram":
        """The histogram of an array of any shape, in NumPy.

        Example:
            >>> histogram = Histogram.of(np.array([0.5, -3.0]))
            >>> histogram.amax, int(histogram.counts.sum())
            (3.0, 2)
        """
        magnitudes = np.abs(np.asarray(x, np.float32)).ravel()
        counts = np.bincount(magnitudes.view(np.uint32) >> DROPPED_BITS, minlength=BINS)
        return Histogram(counts, float(magnitudes.max(initial=0.0)))

    @cached_property
    def bins(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Counts n, lower edges and upper edges of the occupied bins, float64; none reaches beyond `amax`."""
        (occupied,) = np.nonzero(self.counts)
        upper = np.minimum(EDGES[occupied + 1], self.amax)
        return self.counts[occupied].astype(np.float64), EDGES[occupied], upper

    def quantiles(self, shares: np.ndarray) -> np.ndarray:
        """The magnitudes that so many of the numbers don't exceed, interpolated inside their bins.

        Args:
            shares: above 0 and up to 1, shape (k,).

        Returns:
            Float64, shape (k,); 0 for a histogram of nothing.
        """
        n, lower, upper = self.bins
        if not len(n):
            return np.zeros(len(shares))
        cumulative = np.cumsum(n)
        wanted = cumulative[-1] * shares
        b = np.searchsorted(cumulative, wanted)
        inside = 1 - (cumulative[b] - wanted) / n[b]
        return np.asarray(lower[b] + inside * (upper[b] - lower[b]))

    def rebinned(self, edges: np.ndarray) -> np.ndarray:
        """Counts between other edges, the numbers of a bin taken as spread evenly over it.

        Args:
            edges: increasing, from 0 on, float64, shape (k + 1,).

        Returns:
            Float64, shape (k,).
        """
        n, lower, upper = self.bins
        # A cumulative count over both edges of each bin is linear inside the bin and constant between bins.
        x = np.stack([lower, upper], axis=1).ravel()
        below = np.concatenate([[0.0], np.cumsum(n)])
        return np.diff(np.interp(edges, x, np.stack([below[:-1], below[1:]], axis=1).ravel()))


def merge(a: Histogram, b: Histogram) -> Histogram:
    """The histogram of all the data in `a` and `b`.

    Example:
        >>> both = merge(Histogram.of(np.array([1.0])), Histogram.of(np.array([7.0])))
        >>> both.amax, int(both.counts.sum())
        (7.0, 2)
    """
    return Histogram(a.counts + b.counts, max(a.amax, b.amax))


_PERCENTILES = (50.0, 99.0, 99.9, 99.99)

BARS = 64
"""Enough for the eye; the bins of the histogram itself are thousands."""


def summarize(histogram: Histogram) -> dict[str, float]:
    """The percentiles of the magnitudes, interpolated inside their bins, and the largest magnitude exactly.

    Args:
        histogram: of the magnitudes.

    Returns:
        {"p50": …, "p99": …, "p99.9": …, "p99.99": …, "max": …}; all 0 for a histogram of nothing.

    Example:
        >>> summarize(Histogram.of(np.arange(1000) / 1000))
        {'p50': 0.49..., 'p99': 0.98..., 'p99.9': 0.99..., 'p99.99': 0.99..., 'max': 0.99...}
    """
    quantiles = histogram.quantiles(np.array(_PERCENTILES) / 100)
    return {**{f"p{p:g}": float(x) for p, x in zip(_PERCENTILES, quantiles, strict=True)}, "max": histogram.amax}


def bars(histogram: Histogram) -> tuple[float, ...]:
    """The shares of the magnitudes in equal bins from 0 to the largest.

    Args:
        histogram: of the magnitudes.

    Returns:
        `BARS` numbers that add up to 1; all 0 for a histogram of nothing or of zeros.

    Example:
        >>> shown = bars(Histogram.of(np.arange(1, 641) / 10))
        >>> len(shown), sum(shown), shown[1]
        (64, 1.0, 0.015625)
    """
    if histogram.amax == 0:
        return (0.0,) * BARS
    counts = histogram.rebinned(np.linspace(0.0, histogram.amax, BARS + 1))
    return tuple((counts / counts.sum()).tolist())
