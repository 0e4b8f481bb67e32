"""Data in any form that Keras knows → checked batches of NumPy arrays, as many images as requested.

A table has a row for each kind of data: how it is recognized, and how its batches and their number are obtained. The
structure of a batch is Keras's (`keras.utils.unpack_x_y_sample_weight`): a tuple is (x,), (x, y) or
(x, y, sample_weight), and x is an array, a list of arrays, or a dictionary of arrays by input. A list is read as such a
tuple too, since DataLoaders collate samples into lists; but for a model with several inputs a list of arrays is x, as
it is for `model.predict_on_batch`.
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

from keras_qat.errors import MOST_IMAGES_AT_ONCE, DataError, require_whole
from keras_qat.graph import input_names
from keras_qat.progress import track_images

_IMAGE_RANK = 4

_REGISTERED_TYPE = 2
"""`dtype.isbuiltin` of types that other packages register with NumPy, such as bfloat16."""


def arrays_of(batch: Any, model: Any) -> list[np.ndarray]:
    """Return the arrays of a batch in the order of the model's inputs, without labels and weights.

    Args:
        batch: Arrays or tensors of shape (batch, …), of any numeric type, in one of the structures above.
        model: The model that will read them.

    Returns:
        One array for each of `model.inputs`, of the type it came in; the model casts.

    Raises:
        DataError: If the arrays do not fit the model, are not numeric, or hold a number that is not finite.

    Example:
        >>> import keras
        >>> left, right = keras.Input((2,), name="left"), keras.Input((3,), name="right")
        >>> model = keras.Model([left, right], keras.layers.Concatenate()([left, right]))
        >>> [x.shape for x in arrays_of(({"right": np.zeros((4, 3)), "left": np.zeros((4, 2))}, "labels"), model)]
        [(4, 2), (4, 3)]
    """
    x = _without_labels(batch, len(model.inputs))
    if isinstance(x, Mapping):
        x = inputs_by_name(x, model)
    arrays = [_to_numpy(array) for array in (x if isinstance(x, tuple | list) else [x])]
    for array in arrays:
        _check_type(array)
    check_shapes([array.shape for array in arrays], model)
    for array, name in zip(arrays, input_names(model), strict=True):
        _check_finite(array, name)
    return arrays


def _without_labels(batch: Any, inputs: int) -> Any:
    """Return x of a batch for a model with that many inputs."""
    if not isinstance(batch, tuple | list):
        return batch
    if not batch:
        raise DataError(f"A batch is empty. Received: {batch!r}. Give arrays of images, or (images, labels).")
    several = isinstance(batch, list) and inputs > 1 and not isinstance(batch[0], tuple | list | Mapping)
    return batch if several else batch[0]


_CONVERTERS: tuple[tuple[Callable[[Any], bool], Callable[[Any], Any]], ...] = (
    (keras.ops.is_tensor, keras.ops.convert_to_numpy),
    # A tensor of a framework that is not Keras's backend. It may be on a device or require gradients.
    (lambda x: hasattr(x, "detach") and hasattr(x, "cpu"), lambda x: np.asarray(x.detach().cpu())),
    (lambda _: True, np.asarray),
)
"""(whether x is this kind of array, its conversion to NumPy); the first match applies."""


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
    if array.dtype.kind not in "biuf" and array.dtype.isbuiltin != _REGISTERED_TYPE:
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


def inputs_by_name(arrays: Mapping[str, Any], model: Any) -> list[Any]:
    """Return the arrays of a dictionary in the order of the model's inputs. Other keys, such as labels, are ignored.

    Raises:
        DataError: If an input has no array.
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
    """Refuse arrays whose shapes do not fit the model's inputs.

    Args:
        received: The shapes of the arrays, the batch axis first.
        model: The model that will read them.

    Raises:
        DataError: If the number of arrays or a shape is wrong, or if one array has more images than another.
    """
    expected = [tuple(i.shape) for i in model.inputs]
    if len(expected) != len(received) or not all(map(_fits, expected, received)):
        single = len(expected) == len(received) == 1
        raise DataError(
            f"The images don't fit the model {model.name!r}. Received: a batch of shape "
            f"{received[0] if single else list(received)}, where the model takes "
            f"{expected[0] if single else expected}. {_advice(expected, received)}"
        )
    if len({shape[0] for shape in received}) > 1:
        raise DataError(
            f"The inputs of the model {model.name!r} need the same number of images. Received: a batch of shapes "
            f"{list(received)}. Give as many for each input."
        )


def _fits(expected: tuple[int | None, ...], received: tuple[int, ...]) -> bool:
    same_rank = len(expected) == len(received)
    return same_rank and all(e in (None, r) for e, r in zip(expected, received, strict=True))


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
    """Yield the arrays of each batch that is not empty, under a progress bar.

    Args:
        data: Images, shape (batch, …), in the axes and with the preprocessing of the model's training, as
            - an array of all images (NumPy, a tensor, a memory map, a dataset of an HDF5 file), or a dictionary of such
              arrays by input, which is cut into batches;
            - an iterable of batches: a list, a generator, a DataLoader;
            - a batched `tf.data.Dataset`, or a `keras.utils.PyDataset`.
            A batch is an array, a list of arrays for several inputs, or a dictionary of arrays; or such an x in a tuple
            (x, labels) or (x, labels, weights), of which only x is read.
        model: The model that will read the images.
        images: The exact number of images to read; all by default. If the data has fewer, a warning is logged.
        batch_size: The number of images in a batch, for arrays that are not cut into batches yet.
        description: What the images are read for, for the progress bar and the warning.
        total: The number of batches, for the progress bar, if the data cannot tell it.

    Returns:
        For each batch a list of arrays, one for each of `model.inputs`, of the type they came in.

    Raises:
        DataError: If the data cannot be read, does not fit the model or is not finite, or if it never ends and `images`
            is not given. A generator cannot be asked whether it ends.
        UserError: If `images` or `batch_size` isn't a whole number of at least 1.

    Example:
        >>> import keras
        >>> x = keras.Input((4, 4, 3))
        >>> model = keras.Model(x, keras.layers.ReLU()(x))
        >>> data = np.zeros((10, 4, 4, 3), "uint8")
        >>> [len(x) for (x,) in read_batches(data, model, images=7, batch_size=4, description="reading")]
        [4, 3]
    """
    images = None if images is None else require_whole("images", images)
    batch_size = require_whole("batch_size", batch_size, most=MOST_IMAGES_AT_ONCE)
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
    """Yield the first `images` images. The last batch is cut, and none is read after it."""
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


class Variety:
    """Whether the images of a calibration tell anything, found out batch by batch.

    Images that are all of one colour, such as the black ones of a camera that was covered, have no edges and no
    textures: the ranges of all but the first tensors would be those of the biases.

    Example:
        >>> variety = Variety()
        >>> variety.add([np.zeros((2, 8, 8, 3))])
        >>> variety.plain, variety.problem[:38]
        (True, 'All images are of one and the same col')
    """

    def __init__(self) -> None:
        self._first: list[np.ndarray] = []
        self._images = 0
        self._same = True
        self.plain = True
        """Whether every pixel of all images so far is the same."""

    def add(self, x: Sequence[np.ndarray]) -> None:
        """Look at a batch.

        Args:
            x: one array for each input of the model, of shape (batch, …), channels last.
        """
        if not self._same:
            return
        self._images += len(x[0])
        self._first = self._first or [array[:1] for array in x]
        self._same = self._same and all(map(_all_equal, x, self._first))
        self.plain = self.plain and self._same and all(map(_is_plain, x))

    @property
    def problem(self) -> str | None:
        """What is wrong with the images that were looked at, as a sentence; `None` if nothing is."""
        if not self._same or not self._images:
            return None
        if self.plain:
            colour = self._first[0].reshape(-1, self._first[0].shape[-1])[0]
            return (
                "All images are of one and the same colour, and nothing can be calibrated on those. "
                f"Received: {self._images} image(s) of the number(s) {colour}. "
            )
        return f"All images are the same, and the ranges fit that one. Received: {self._images} equal images. "


def require_variety(batches: Iterable[np.ndarray]) -> None:
    """Refuse images that are all of one colour, before anything is done with them. Most often one batch tells.

    Args:
        batches: arrays of images, of shape (batch, height, width, channels).

    Raises:
        DataError: If every pixel of all images is the same.

    Example:
        >>> require_variety([np.zeros((2, 8, 8, 3))])
        Traceback (most recent call last):
        ...
        keras_qat.errors.DataError: All images are of one and the same colour, and nothing can be calibrated on ...
    """
    variety = Variety()
    for x in batches:
        variety.add([x])
        if not variety.plain:
            return
    if variety.plain and variety.problem:
        raise DataError(f"{variety.problem}{VARIETY}")


VARIETY = "Give images like those that the model will see, and check how they are read and prepared."


def _is_plain(array: np.ndarray) -> bool:
    return array.ndim == _IMAGE_RANK and _all_equal(array, array[:1, :1, :1])


def _all_equal(array: np.ndarray, first: np.ndarray) -> bool:
    return bool((array == first).all())


@dataclass(frozen=True)
class Source:
    """The batches of some data.

    Args:
        batches: The batches as the data gives them, before `arrays_of`.
        steps: The number of batches, if it is known.
        endless: Whether the batches never end.
    """

    batches: Iterable[Any]
    steps: int | None = None
    endless: bool = False


def open_source(data: Any, model: Any, batch_size: int) -> Source:
    """Return the batches of `data`.

    Args:
        data: Anything that `read_batches` accepts.
        model: The model that will read the images.
        batch_size: The number of images in a batch, for arrays that are not cut into batches yet.

    Raises:
        DataError: If no row of the table recognizes the data, or if its arrays do not fit the model.

    Example:
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
    """Also recognizes tensors of any framework, memory maps and HDF5 datasets, which are read one slice at a time."""
    return hasattr(data, "__array__") and hasattr(data, "shape")


def _is_tf_dataset(data: Any) -> bool:
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
    return Source((([a[i : i + batch_size] for a in arrays],) for i in starts), len(starts))


def _tf_dataset(data: Any, _model: Any, _batch_size: int) -> Source:
    infinite, unknown = -1, -2  # tf.data.INFINITE_CARDINALITY, tf.data.UNKNOWN_CARDINALITY
    steps = int(data.cardinality())
    return Source(data, None if steps in (infinite, unknown) else steps, endless=steps == infinite)


def _py_dataset(data: Any, _model: Any, _batch_size: int) -> Source:
    try:
        steps = data.num_batches
    except NotImplementedError:  # Keras takes a PyDataset without a length for an infinite one.
        steps = None
    indices: Iterable[int] = itertools.count() if steps is None else range(steps)
    return Source((data[i] for i in indices), steps, endless=steps is None)


def _endless(data: Any, _model: Any, _batch_size: int) -> Source:
    return Source(data, endless=True)


def _iterable(data: Any, _model: Any, _batch_size: int) -> Source:
    """Read lists of batches, generators and DataLoaders."""
    # Unlike `len`, it also takes the TypeError of a DataLoader without a length for an unknown one.
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
"""(whether it is this kind of data, how it is read); the first match applies."""
