"""A random order of labels in which every prefix holds the classes in proportion.

Within a class the images are shuffled and the k-th of m gets the key (k + u) / m, with u uniform in [0, 1).
Sorted by that key, the first n images hold each class n · m / N times, give or take one; with one image per
class it is a plain shuffle.
"""

import numpy as np
from numpy.typing import NDArray


def stratified_order(labels: NDArray[np.int32], seed: int) -> NDArray[np.int64]:
    """A seeded permutation of the indices of `labels`, each prefix of it as stratified as possible.

    Args:
        labels: int32 array of shape (n,).
        seed: the same seed gives the same order on every machine.

    Returns:
        int64 array of shape (n,): a permutation of 0 … n - 1.

    Example:
        >>> labels = np.array([0] * 90 + [1] * 10, np.int32)
        >>> np.bincount(labels[stratified_order(labels, seed=1)[:20]])
        array([18,  2])
    """
    random = np.random.default_rng(seed)
    shuffled = random.permutation(len(labels)).astype(np.int64)
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    _, start, count = np.unique(labels[by_class], return_index=True, return_counts=True)
    rank = np.arange(len(labels)) - np.repeat(start, count)
    key = (rank + random.random(len(labels))) / np.repeat(count, count)
    return by_class[np.argsort(key, kind="stable")]


def stratified_cut(
    labels: NDArray[np.int32], share: float, most: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Cut off a share of the indices of `labels`, as stratified as possible.

    Args:
        labels: int32 array of shape (n,).
        share: the share to cut off, from 0 to 1; at least one index is.
        most: the most indices to cut off.
        seed: the seed of `stratified_order`.

    Returns:
        The indices that stay and those that are cut off, both int64 and sorted.

    Example:
        >>> stay, off = stratified_cut(np.array([0, 1] * 10, np.int32), 0.1, 5000, seed=0)
        >>> len(stay), len(off)
        (18, 2)
    """
    order = stratified_order(labels, seed)
    count = min(max(1, round(share * len(labels))), most)
    return np.sort(order[count:]), np.sort(order[:count])
