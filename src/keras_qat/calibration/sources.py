"""What holds the images → its batches, and how many there are: one row of a table for each kind of data."""

import itertools
import operator
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from keras_qat.calibration.batch import check_shapes, inputs_by_name
from keras_qat.errors import DataError


@dataclass(frozen=True)
class Source:
    """Batches to read.

    Args:
        batches: as the data gives them, each yet to be understood by `arrays_of`.
        steps: how many batches there are, where that is known.
        endless: whether they never end.
    """

    batches: Iterable[Any]
    steps: int | None = None
    endless: bool = False


def open_source(data: Any, model: Any, batch_size: int) -> Source:
    """The batches of `data`.

    Args:
        data: anything that `read_batches` takes.
        model: what will read the images.
        batch_size: images in a batch, for arrays that aren't cut into batches yet.

    Raises:
        DataError: nothing here can read such data, or its arrays don't fit the model.

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
        f"Calibration images can't be read from this. Received: {type(data).__name__}. Give an array, a dictionary of "
        "arrays, an iterable of batches, a tf.data.Dataset, a keras.utils.PyDataset or a DataLoader."
    )


def _is_array(data: Any) -> bool:
    """Also tensors of any framework, memory maps and datasets of HDF5 files, which are read a slice at a time."""
    return hasattr(data, "__array__") and hasattr(data, "shape")


def _is_tf_dataset(data: Any) -> bool:
    # Without TensorFlow in this process there is no such dataset, so it needn't be imported to know one.
    tensorflow = sys.modules.get("tensorflow")
    return tensorflow is not None and isinstance(data, tensorflow.data.Dataset)


def _array(data: Any, model: Any, batch_size: int) -> Source:
    return _cut([data], model, batch_size)


def _dictionary(data: Mapping[str, Any], model: Any, batch_size: int) -> Source:
    return _cut(inputs_by_name(data, model), model, batch_size)


def _cut(arrays: Sequence[Any], model: Any, batch_size: int) -> Source:
    # Before the cut: a slice of one image would be complained of with the shape of the slice.
    check_shapes([tuple(a.shape) for a in arrays], model)
    starts = range(0, len(arrays[0]), batch_size)

    def batches() -> Iterator[tuple[list[Any]]]:
        for i in starts:
            yield ([a[i : i + batch_size] for a in arrays],)

    return Source(batches(), len(starts))


def _tf_dataset(data: Any, _model: Any, _batch_size: int) -> Source:
    infinite, unknown = -1, -2  # tf.data.INFINITE_CARDINALITY, tf.data.UNKNOWN_CARDINALITY
    steps = int(data.cardinality())
    return Source(data, None if steps in (infinite, unknown) else steps, endless=steps == infinite)


def _py_dataset(data: Any, _model: Any, _batch_size: int) -> Source:
    try:
        steps = data.num_batches
    except NotImplementedError:  # Keras takes a PyDataset that doesn't say its length for an infinite one.
        steps = None
    indices: Iterable[int] = itertools.count() if steps is None else range(steps)
    return Source((data[i] for i in indices), steps, endless=steps is None)


def _endless(data: Any, _model: Any, _batch_size: int) -> Source:
    return Source(data, endless=True)


def _iterable(data: Any, _model: Any, _batch_size: int) -> Source:
    """Lists of batches, generators, DataLoaders; the last raise a TypeError as their length where they have none."""
    steps = operator.length_hint(data, -1)
    return Source(data, None if steps < 0 else steps)


_READERS: tuple[tuple[Callable[[Any], bool], Callable[[Any, Any, int], Source]], ...] = (
    (_is_array, _array),
    (lambda data: isinstance(data, Mapping), _dictionary),
    (lambda data: isinstance(data, keras.utils.PyDataset), _py_dataset),
    (_is_tf_dataset, _tf_dataset),
    (lambda data: isinstance(data, itertools.cycle | itertools.count), _endless),
    (lambda data: isinstance(data, Iterable), _iterable),
)
"""(whether it is this kind of data, how it is read); the first that fits reads it."""
