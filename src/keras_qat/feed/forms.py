"""Data in any form that Keras knows → its batches, from any of them on, and their number.

A table has a row for each kind of data: how it is recognized, and how its batches and their number are obtained.
"""

import itertools
import operator
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from keras_qat.errors import DataError
from keras_qat.feed.arrays import check_shapes, inputs_by_name


@dataclass(frozen=True)
class Source:
    """The batches of some data.

    Args:
        read: Number of a batch (from 0) → an iterator over the batches from that one on, as the data gives them, before
            `arrays_of`.
        steps: The number of batches, if it is known.
        endless: Whether the batches never end.
        once: Whether they can be read only once, as those of a generator.
    """

    read: Callable[[int], Iterator[Any]]
    steps: int | None = None
    endless: bool = False
    once: bool = False


def open_source(data: Any, model: Any, batch_size: int) -> Source:
    """Return the batches of `data`.

    Args:
        data: Images, shape (batch, …), in the axes and with the preprocessing of the model's training, as
            - an array of all images (NumPy, a tensor, a memory map, a dataset of an HDF5 file), or a dictionary of such
              arrays by input, which is cut into batches;
            - an iterable of batches: a list, a generator, a DataLoader;
            - a batched `tf.data.Dataset`, or a `keras.utils.PyDataset`.
            A batch is an array, a list of arrays for several inputs, or a dictionary of arrays; or such an x in a tuple
            (x, labels) or (x, labels, weights).
        model: The model that will read the images.
        batch_size: The number of images in a batch, for arrays that are not cut into batches yet.

    Raises:
        DataError: If no row of the table recognizes the data, or if its arrays do not fit the model.

    Example:
        >>> import numpy as np
        >>> x = keras.Input((4, 4, 3))
        >>> open_source(np.zeros((10, 4, 4, 3)), keras.Model(x, keras.layers.ReLU()(x)), 4).steps
        3
    """
    for recognizes, read in _READERS:
        if recognizes(data):
            return read(data, model, batch_size)
    raise DataError(
        f"Images can't be read from this. Received: {type(data).__name__}. Give an array, a dictionary of "
        "arrays, an iterable of batches, a tf.data.Dataset, a keras.utils.PyDataset or a DataLoader."
    )


def is_array(data: Any) -> bool:
    """Return whether data is an array: of NumPy, a tensor of any framework, a memory map, or an HDF5 dataset.

    The last two are read one slice at a time.
    """
    return hasattr(data, "__array__") and hasattr(data, "shape")


def is_tf_dataset(data: Any) -> bool:
    """Return whether data is a `tf.data.Dataset`, without an import of TensorFlow."""
    # If TensorFlow has not been imported by this process, the data cannot be a tf.data.Dataset.
    tensorflow = sys.modules.get("tensorflow")
    return tensorflow is not None and isinstance(data, tensorflow.data.Dataset)


def _array(data: Any, model: Any, batch_size: int) -> Source:
    return _cut([data], model, batch_size)


def _dictionary(data: Mapping[str, Any], model: Any, batch_size: int) -> Source:
    return _cut(inputs_by_name(data, model), model, batch_size)


def _cut(arrays: Sequence[Any], model: Any, batch_size: int) -> Source:
    # Checked before the cut, so that an error shows the shape of the whole array and not of a slice.
    check_shapes([tuple(a.shape) for a in arrays], model)
    starts = range(0, len(arrays[0]), batch_size)
    return Source(lambda first: (([a[i : i + batch_size] for a in arrays],) for i in starts[first:]), len(starts))


def _tf_dataset(data: Any, _model: Any, _batch_size: int) -> Source:
    infinite, unknown = -1, -2  # tf.data.INFINITE_CARDINALITY, tf.data.UNKNOWN_CARDINALITY
    steps = int(data.cardinality())
    known = None if steps in (infinite, unknown) else steps
    return Source(lambda first: iter(data.skip(first) if first else data), known, endless=steps == infinite)


def _py_dataset(data: Any, _model: Any, _batch_size: int) -> Source:
    try:
        steps = data.num_batches
    except NotImplementedError:  # Keras takes a PyDataset without a length for an infinite one.
        steps = None

    def read(first: int) -> Iterator[Any]:
        return (data[i] for i in (itertools.count(first) if steps is None else range(first, steps)))

    return Source(read, steps, endless=steps is None)


def _endless(data: Any, _model: Any, _batch_size: int) -> Source:
    return Source(lambda first: itertools.islice(data, first, None), endless=True, once=True)


def _iterable(data: Any, _model: Any, _batch_size: int) -> Source:
    """Read lists of batches, generators, which can be read once, and DataLoaders."""
    # Unlike `len`, it also takes the TypeError of a DataLoader without a length for an unknown one.
    steps = operator.length_hint(data, -1)
    known = None if steps < 0 else steps
    return Source(lambda first: itertools.islice(data, first, None), known, once=isinstance(data, Iterator))


_READERS: tuple[tuple[Callable[[Any], bool], Callable[[Any, Any, int], Source]], ...] = (
    (is_array, _array),
    (lambda data: isinstance(data, Mapping), _dictionary),
    (lambda data: isinstance(data, keras.utils.PyDataset), _py_dataset),
    (is_tf_dataset, _tf_dataset),
    (lambda data: isinstance(data, itertools.cycle | itertools.count), _endless),
    (lambda data: isinstance(data, Iterable), _iterable),
)
"""(whether it is this kind of data, how it is read); the first match applies."""
