"""One batch, of whatever framework and structure → the NumPy arrays of the model's inputs, checked.

The structure is Keras's (`keras.utils.unpack_x_y_sample_weight`): a tuple is (x,), (x, y) or (x, y, sample_weight), and
x is an array, a list of arrays, or a dictionary of arrays by input. A list is read as such a tuple too, as DataLoaders
collate samples into lists; but for a model with several inputs a list of arrays is x, as for `model.predict_on_batch`.

What holds the images → its batches, and how many there are: one row of a table for each kind of data.

Images in any form that Keras knows → batches of NumPy arrays, as many images as wanted.
"""

import itertools
import logging
import operator
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_qat.errors import DataError, UserError
from keras_qat.graph import input_names
from keras_qat.progress import track_images


def arrays_of(batch: Any, model: Any) -> list[np.ndarray]:
    """The arrays of a batch in the order of the model's inputs, without labels and weights.

    Args:
        batch: see above; arrays or tensors of shape (batch, …), of any numeric type.
        model: what will read them.

    Returns:
        One array for each of `model.inputs`, of the type that it came in; the model casts.

    Raises:
        DataError: the arrays don't fit the model, aren't numbers, or aren't finite.

    Example:
        >>> import keras
        >>> left, right = keras.Input((2,), name="left"), keras.Input((3,), name="right")
        >>> model = keras.Model([left, right], keras.layers.Concatenate()([left, right]))
        >>> [x.shape for x in arrays_of(({"right": np.zeros((4, 3)), "left": np.zeros((4, 2))}, "labels"), model)]
        [(4, 2), (4, 3)]
    """
    x = _x_of(batch, len(model.inputs))
    if isinstance(x, Mapping):
        x = inputs_by_name(x, model)
    arrays = [_to_numpy(one) for one in (x if isinstance(x, tuple | list) else [x])]
    for array in arrays:
        _check_type(array)
    check_shapes([array.shape for array in arrays], model)
    for array, name in zip(arrays, input_names(model), strict=True):
        _check_finite(array, name)
    return arrays


def inputs_by_name(arrays: Mapping[str, Any], model: Any) -> list[Any]:
    """The arrays of a dictionary in the order of the model's inputs; others, such as labels, are passed over.

    Raises:
        DataError: an input has no array.
    """
    names = input_names(model)
    missing = [name for name in names if name not in arrays]
    if missing:
        raise DataError(
            f"The model {model.name!r} has an input {missing[0]!r}, for which there is no array. "
            f"Received: a dictionary of {', '.join(map(repr, arrays)) or 'nothing'}. Name the arrays "
            f"{', '.join(map(repr, names))}."
        )
    return [arrays[name] for name in names]


def check_shapes(received: Sequence[tuple[int, ...]], model: Any) -> None:
    """Refuse arrays that the model doesn't take.

    Args:
        received: their shapes, the batch axis first.
        model: what will read them.

    Raises:
        DataError: the number of arrays or a shape is wrong, or one has more images than another.
    """
    expected = [tuple(i.shape) for i in model.inputs]
    if len(expected) != len(received) or not all(map(_fits, expected, received)):
        one = len(expected) == len(received) == 1
        raise DataError(
            f"The images don't fit the model {model.name!r}. Received: a batch of shape "
            f"{received[0] if one else list(received)}, where the model takes {expected[0] if one else expected}. "
            f"{_advice(expected, received)}"
        )
    if len({shape[0] for shape in received}) > 1:
        raise DataError(
            f"The inputs of the model {model.name!r} need the same number of images. Received: a batch of shapes "
            f"{list(received)}. Give as many for each input."
        )


def _fits(expected: tuple[int | None, ...], received: tuple[int, ...]) -> bool:
    same_rank = len(expected) == len(received)
    return same_rank and all(e in (None, g) for e, g in zip(expected, received, strict=True))


def _advice(expected: Sequence[tuple[int | None, ...]], received: Sequence[tuple[int, ...]]) -> str:
    if len(expected) != len(received):
        return (
            "Give one array for each input, as a list: [left, right], or ([left, right], labels); a tuple is "
            "(images, labels)."
            if len(expected) > 1
            else "Give one array of images."
        )
    if all(map(_fits, (shape[1:] for shape in expected), received)):
        return "This is one image without a batch axis: add it with `image[np.newaxis]`, or `.batch(32)` a dataset."
    if all(map(_fits, ((None, *shape[1:]) for shape in expected), received)):
        return f"The model takes batches of exactly {expected[0][0]} images: give such, or build it without that size."
    return "Resize the images as for training."


def _x_of(batch: Any, inputs: int) -> Any:
    """What the model reads of a batch."""
    if not isinstance(batch, tuple | list):
        return batch
    if not batch:
        raise DataError(f"A batch is empty. Received: {batch!r}. Give arrays of images, or (images, labels).")
    several = isinstance(batch, list) and inputs > 1 and not isinstance(batch[0], tuple | list | Mapping)
    return batch if several else batch[0]


_CONVERTERS: tuple[tuple[Callable[[Any], bool], Callable[[Any], Any]], ...] = (
    (ops.is_tensor, ops.convert_to_numpy),
    # A tensor of another framework than Keras's: it may be on a device, or recorded for gradients.
    (lambda x: hasattr(x, "detach") and hasattr(x, "cpu"), lambda x: np.asarray(x.detach().cpu())),
    (lambda _: True, np.asarray),
)
"""(whether it is this kind of array, how it becomes one of NumPy); the first that fits converts it."""


def _to_numpy(x: Any) -> np.ndarray:
    convert = next(convert for recognizes, convert in _CONVERTERS if recognizes(x))
    try:
        return np.asarray(convert(x))
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(
            f"Calibration images can't be read as an array: {error}. Received: {type(x).__name__}. "
            "Give arrays of numbers, all images of a batch of one shape."
        ) from error


def _check_type(array: np.ndarray) -> None:
    registered = 2  # NumPy's word for types of other packages, such as bfloat16.
    if array.dtype.kind not in "biuf" and array.dtype.isbuiltin != registered:
        raise DataError(
            f"Calibration images must be numbers. Received: an array of type {array.dtype}, shape {array.shape}. "
            "Decode the images to arrays, all of one shape, with the preprocessing of training."
        )


def _check_finite(array: np.ndarray, name: str) -> None:
    if array.dtype.kind in "biu" or np.isfinite(array).all():
        return
    bad = float(array[~np.isfinite(array)][0])
    raise DataError(
        f"The input {name!r} is not finite on these images. Received: a batch with a number {bad}. "
        "Check the preprocessing of the images."
    )


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


_logger = logging.getLogger(__name__)


def read_batches(
    data: Any,
    model: Any,
    *,
    images: int | None = None,
    batch_size: int = 32,
    description: str,
    total: int | None = None,
) -> Iterator[list[np.ndarray]]:
    """The arrays of each batch that isn't empty, under a progress bar.

    Args:
        data: images, (batch, …) in the axes and with the preprocessing of the model's training, as
            - an array of all images (NumPy, a tensor, a memory map, a dataset of an HDF5 file), or a dictionary of such
              arrays by input; it is cut into batches;
            - an iterable of batches: a list, a generator, a DataLoader;
            - a batched `tf.data.Dataset`, or a `keras.utils.PyDataset`.
            A batch is an array, a list of arrays for several inputs, or a dictionary of arrays; or such an x in a tuple
            (x, labels) or (x, labels, weights), of which only x is read.
        model: what will read the images.
        images: stop after exactly so many; all if not given. With fewer there is a warning.
        batch_size: images in a batch, for arrays that aren't cut into batches yet.
        description: what is being done, for the progress bar and the warning.
        total: number of batches, for the progress bar, where the data can't say.

    Returns:
        For each batch a list of arrays, one for each of `model.inputs`, in the type that they came in.

    Raises:
        DataError: the data can't be read, doesn't fit the model, isn't finite, or never ends and `images` isn't given.
            A generator can't be asked whether it ends.
        UserError: `images` or `batch_size` is under 1.

    Example:
        >>> import keras
        >>> x = keras.Input((4, 4, 3))
        >>> model = keras.Model(x, keras.layers.ReLU()(x))
        >>> data = np.zeros((10, 4, 4, 3), "uint8")
        >>> [len(x) for (x,) in read_batches(data, model, images=7, batch_size=4, description="reading")]
        [4, 3]
    """
    for name, value in (("images", images), ("batch_size", batch_size)):
        if value is not None and value < 1:
            raise UserError(f"`{name}` must be at least 1. Received: {value}. Give a larger number.")
    source = open_source(data, model, batch_size)
    if source.endless and images is None:
        raise DataError(
            f"These images never end. Received: {type(data).__name__}, of infinite length. "
            "Say how many to take: `images=256`."
        )
    batches = (arrays_of(batch, model) for batch in source.batches)
    taken = _take(batches, images, description)
    return track_images(taken, lambda x: len(x[0]), description, total or source.steps, images)


def _take(batches: Iterable[list[np.ndarray]], images: int | None, description: str) -> Iterator[list[np.ndarray]]:
    """The first `images` images; the last batch is cut, and none is read after it."""
    wanted = sys.maxsize if images is None else images
    taken = 0
    for batch in batches:
        x = [array[: wanted - taken] for array in batch]
        if len(x[0]):
            taken += len(x[0])
            yield x
        if taken == wanted:
            return
    if images is not None and taken:
        _logger.warning("%s with %d images: the data has no more of the %d.", description.capitalize(), taken, images)
