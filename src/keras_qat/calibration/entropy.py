"""The range that keeps most information (S. Migacz, "8-bit inference with TensorRT", GTC 2017, slides 32 to 38).

The magnitudes are counted in bins of equal width. For each candidate, the first i bins:

    P  the counts of the first i bins, all that lies beyond added to the last of them that isn't empty (it saturates);
    Q  the same counts without what lies beyond, as the grid shows them: merged into as many levels as the grid has,
       each level's count spread evenly over those of its bins that aren't empty;

and the i with the least KL(P ‖ Q) = Σ p log(p / q) wins; amax is the upper edge of its last bin. The bins end at 16
times what 99.9% of the numbers don't exceed: with an outlier farther out all others would share a few bins.
"""

import numpy as np

from keras_qat.calibration.histogram import Histogram
from keras_qat.types import QuantSpec

_BINS_PER_LEVEL = 16
_CANDIDATES = 128
_FARTHEST = 16


def entropy(histogram: Histogram, spec: QuantSpec) -> float:
    """The amax with the least Kullback-Leibler divergence; 0 where all numbers are 0.

    Args:
        histogram: of the magnitudes.
        spec: the integers.
    """
    if histogram.amax == 0:
        return 0.0
    levels = spec.q_max + 1
    bins = levels * _BINS_PER_LEVEL
    most = float(histogram.quantiles(np.array([0.999]))[0])
    top = min(histogram.amax, _FARTHEST * most) if most > np.finfo(np.float32).tiny else histogram.amax
    counts = histogram.rebinned(np.append(np.linspace(0.0, top, bins + 1), np.inf))
    beyond, counts = counts[-1], counts[:-1]
    # Zeros are exact in any range. A ReLU makes so many that they would decide alone: count the first bin as the next.
    counts[0] = counts[1]
    if not counts.any():
        return top
    candidates = np.unique(np.linspace(levels, bins, _CANDIDATES).astype(int))
    divergences = [_divergence(counts, beyond, int(i), levels) for i in candidates]
    return float(candidates[np.argmin(divergences)] / bins * top)


def _divergence(counts: np.ndarray, beyond: float, i: int, levels: int) -> float:
    """KL(P ‖ Q) of keeping the first `i` bins; infinite where they are all empty."""
    kept = counts[:i]
    p = kept.copy()
    occupied = kept > 0
    if not occupied.any():
        return float("inf")
    p[np.flatnonzero(occupied)[-1]] += counts[i:].sum() + beyond
    starts = np.arange(levels) * i // levels
    level_of = np.searchsorted(starts, np.arange(i), side="right") - 1
    share = np.add.reduceat(kept, starts) / np.maximum(np.add.reduceat(occupied, starts, dtype=np.int64), 1)
    q = np.where(occupied, share[level_of], 0.0)
    p, q = p / p.sum(), q / q.sum()
    shown = p > 0
    return float(np.sum(p[shown] * np.log(p[shown] / q[shown])))
