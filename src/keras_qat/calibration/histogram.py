"""Histograms of magnitudes whose bins are those of float32 itself, and what a report shows of them.

Without its sign and the lowest 15 bits of its mantissa, a float32 is the number of its bin:

    b(x) = bits(|x|) >> 15

Every power of two is thus divided into 256 bins, the same for all tensors and batches. The range need not be known in
advance, memory is constant, and histograms are merged by adding their counts. A histogram therefore depends on the data
alone, to the last bit, whatever the batches, their order, the backend or the device.

Bins are widest at the top of the range, where a bin is at most one step of an unsigned 8-bit grid wide; at an eighth of
the range it is an eighth of a step. Calibration methods treat the numbers of a bin as spread evenly over it.
"""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

DROPPED_BITS = 15
"""The lowest bits of the mantissa, which do not distinguish bins."""

BINS = 0x7F80_0000 >> DROPPED_BITS
"""The number of bins of finite magnitudes; infinity falls into the first bin after them."""

EDGES = np.append((np.arange(BINS, dtype=np.uint32) << DROPPED_BITS).view(np.float32).astype(np.float64), 2.0**128)
"""Bin b holds EDGES[b] <= |x| < EDGES[b + 1]. Float64, shape (BINS + 1,)."""

BARS = 64
"""The number of bars in a report. The histogram has thousands of bins, more than a reader can see."""

_PERCENTILES = (50.0, 99.0, 99.9, 99.99)


@dataclass(frozen=True)
class Histogram:
    """How often each magnitude occurred.

    Args:
        counts: The count of each bin, int64, shape (BINS,); shape (0,) if only the largest magnitude was observed.
        amax: The exact largest magnitude.
    """

    counts: np.ndarray = field(repr=False)
    amax: float

    @staticmethod
    def empty() -> "Histogram":
        """Return the histogram of no data, with a count of 0 in every bin."""
        return Histogram(np.zeros(BINS, np.int64), 0.0)

    @staticmethod
    def of(x: np.ndarray) -> "Histogram":
        """Return the histogram of an array of any shape, computed by NumPy.

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
        """Counts, lower edges and upper edges of the occupied bins, float64. No upper edge exceeds `amax`."""
        (occupied,) = np.nonzero(self.counts)
        upper = np.minimum(EDGES[occupied + 1], self.amax)
        return self.counts[occupied].astype(np.float64), EDGES[occupied], upper

    def quantiles(self, shares: np.ndarray) -> np.ndarray:
        """Return the magnitude that each share of the numbers does not exceed, interpolated inside its bin.

        Args:
            shares: Shares above 0 and up to 1, shape (k,).

        Returns:
            Float64, shape (k,); zeros for an empty histogram.
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
        """Return the counts between other edges, with the numbers of each bin taken as spread evenly over it.

        Args:
            edges: Increasing edges from 0 on, float64, shape (k + 1,).

        Returns:
            Float64, shape (k,).
        """
        n, lower, upper = self.bins
        # A cumulative count over both edges of each bin is linear inside the bin and constant between bins.
        x = np.stack([lower, upper], axis=1).ravel()
        below = np.concatenate([[0.0], np.cumsum(n)])
        return np.diff(np.interp(edges, x, np.stack([below[:-1], below[1:]], axis=1).ravel()))


def merge(a: Histogram, b: Histogram) -> Histogram:
    """Return the histogram of all the data in `a` and `b`.

    Example:
        >>> both = merge(Histogram.of(np.array([1.0])), Histogram.of(np.array([7.0])))
        >>> both.amax, int(both.counts.sum())
        (7.0, 2)
    """
    return Histogram(a.counts + b.counts, max(a.amax, b.amax))


def summarize(histogram: Histogram) -> dict[str, float]:
    """Return percentiles of the magnitudes, interpolated inside their bins, and the exact largest magnitude.

    Returns:
        {"p50": …, "p99": …, "p99.9": …, "p99.99": …, "max": …}; zeros for an empty histogram.

    Example:
        >>> summarize(Histogram.of(np.arange(1000) / 1000))
        {'p50': 0.49..., 'p99': 0.98..., 'p99.9': 0.99..., 'p99.99': 0.99..., 'max': 0.99...}
    """
    quantiles = histogram.quantiles(np.array(_PERCENTILES) / 100)
    return {**{f"p{p:g}": float(x) for p, x in zip(_PERCENTILES, quantiles, strict=True)}, "max": histogram.amax}


def bars(histogram: Histogram) -> tuple[float, ...]:
    """Return the shares of the magnitudes in bins of equal width, from 0 to the largest magnitude.

    Returns:
        `BARS` numbers that add up to 1; zeros if the histogram is empty or holds only zeros.

    Example:
        >>> shares = bars(Histogram.of(np.arange(1, 641) / 10))
        >>> len(shares), sum(shares), shares[1]
        (64, 1.0, 0.015625)
    """
    if histogram.amax == 0:
        return (0.0,) * BARS
    counts = histogram.rebinned(np.linspace(0.0, histogram.amax, BARS + 1))
    return tuple((counts / counts.sum()).tolist())
