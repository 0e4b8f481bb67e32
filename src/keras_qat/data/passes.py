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
        `tf.data.Dataset` of `count` int64 scalars.

    Example:
        >>> shuffled = passes(4, seed=1)
        >>> first, second = (list(shuffled.as_numpy_iterator()) for _ in range(2))
        >>> resumed = list(passes(4, seed=1, first_pass=1).as_numpy_iterator())
        >>> sorted(first) == [0, 1, 2, 3], second == resumed
        (True, True)
    """
    if seed is None:
        return tf.data.Dataset.range(count)
    numbers = itertools.count(first_pass)

    def draw() -> NDArray[np.int64]:
        return np.random.default_rng((seed, next(numbers))).permutation(count)

    def shuffled(_: Any) -> Any:
        indices = tf.numpy_function(draw, [], tf.int64)
        indices.set_shape((count,))
        return tf.data.Dataset.from_tensor_slices(indices)

    one_pass = tf.data.Dataset.range(1).flat_map(shuffled)
    return one_pass.apply(tf.data.experimental.assert_cardinality(count))
