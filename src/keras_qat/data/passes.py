"""The order of the images in each pass over a data set."""

import itertools
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray


def passes(count: int, seed: int | None, first_pass: int = 0) -> Any:
    """A dataset of indices, in another order each time it is iterated if there is a seed.

    The k-th pass is the permutation that NumPy draws from (`seed`, k): TensorFlow's global seed has no say,
    and a training that goes on at pass k sees what an uninterrupted one would have.

    Args:
        count: how many images there are.
        seed: `None` for 0, 1, 2 … in every pass.
        first_pass: number of the first pass.

    Returns:
        `tf.data.Dataset` of `count` pairs of int64 scalars: index, number of the pass. Without a seed all passes
        are equal and have the number of the first.

    Example:
        >>> def order(dataset):
        ...     return [(int(index), int(number)) for index, number in dataset.as_numpy_iterator()]
        >>> shuffled = passes(4, seed=1)
        >>> first, second = (order(shuffled) for _ in range(2))
        >>> sorted(first), second == order(passes(4, seed=1, first_pass=1))
        ([(0, 0), (1, 0), (2, 0), (3, 0)], True)
    """
    if seed is None:
        return tf.data.Dataset.range(count).map(lambda index: (index, tf.constant(first_pass, tf.int64)))
    numbers = itertools.count(first_pass)

    def draw() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        number = next(numbers)
        return np.random.default_rng((seed, number)).permutation(count), np.full(count, number, np.int64)

    def shuffled(_: Any) -> Any:
        indices, number = tf.numpy_function(draw, [], (tf.int64, tf.int64))
        indices.set_shape((count,))
        number.set_shape((count,))
        return tf.data.Dataset.from_tensor_slices((indices, number))

    one_pass = tf.data.Dataset.range(1).flat_map(shuffled)
    return one_pass.apply(tf.data.experimental.assert_cardinality(count))
