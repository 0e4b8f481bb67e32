"""Data from Python objects: arrays, dictionaries, datasets of any framework, generators.

Streams are read into memory, and put in an order of their own.

    array                            inputs
    (x, y)                           inputs and labels, each an array, or a tuple, list or dictionary of arrays
    ((x, y), (x, y))                 what trains and what judges, as `keras.datasets` gives them
    {"train": …, "validation": …}    each any of these
    {name: array}                    named arrays, as an .npz file has them
    tf.data.Dataset, keras.utils.PyDataset, DataLoader, generator, list    batches, or samples, of x or (x, y)
"""

import hashlib
import operator
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_qat.data.arrays.parts import PARTS, TRAIN, VALIDATION, WHOLE, Arrays, by_part
from keras_qat.data.arrays.rows import NUMBERS, ArrayRows
from keras_qat.data.signature import ArraySpec, Signature, sizes_fit
from keras_qat.data.user_function import failed
from keras_qat.errors import DataError
from keras_qat.machine import memory
from keras_qat.progress import track
from keras_qat.text import shortened, size_text

_SHARE = 0.5
"""The share of the available memory that a stream may fill: joining its batches takes as much again."""

_FORMS = (
    "Return an array, (x, y), a dictionary of arrays, a tf.data.Dataset, a keras.utils.PyDataset, a DataLoader or a "
    "generator of batches"
)

_PAIR, _LONGEST = 2, 3


def arrays_of(value: Any, signature: Signature | None, source: str) -> dict[str, Arrays]:
    """The arrays of each part of a data set.

    Args:
        value: any of the forms above.
        signature: what the model reads and answers. Without it, streams are taken for streams of batches.
        source: where the value comes from, for messages.

    Raises:
        DataError: If it has none of these forms, fails, is empty, never ends, or is larger than the memory.
    """
    if isinstance(value, Mapping) and value and all(str(key).lower() in PARTS for key in value):
        parts = {PARTS[str(key).lower()]: _one(part, signature, f"{key!r} of {source}") for key, part in value.items()}
        return {name: part for name, part in parts.items() if part is not None}
    if _is_train_and_test(value, signature):
        first, second = (_one(part, signature, source) for part in value)
        return {TRAIN: first, VALIDATION: second}
    if isinstance(value, Mapping):
        named = {str(key): ArrayRows(to_numpy(array, source), f"{key!r} of {source}") for key, array in value.items()}
        return by_part(named, signature, source)
    return {WHOLE: _one(value, signature, source)}


def _is_train_and_test(value: Any, signature: Signature | None) -> bool:
    """Whether a value is ((x, y), (x, y)). For a model of several inputs that is a pair of their arrays and labels."""
    if not isinstance(value, tuple) or len(value) != _PAIR or (signature is not None and len(signature.inputs) > 1):
        return False
    return all(isinstance(p, tuple) and len(p) == _PAIR and all(map(_is_array, p)) for p in value)


def _is_array(value: Any) -> bool:
    """Whether a value is an array or tensor of any framework, and not a data set."""
    return hasattr(value, "shape") and (hasattr(value, "__array__") or hasattr(value, "detach"))


def _one(value: Any, signature: Signature | None, source: str) -> Arrays:
    """The arrays of one part."""
    if isinstance(value, Mapping):
        parts = arrays_of(value, signature, source)
        if set(parts) == {WHOLE}:
            return parts[WHOLE]
        raise DataError(f"A part can't hold other parts. Received: {source}, with {', '.join(parts)}. {_FORMS}.")
    if _is_array(value):
        return Arrays((ArrayRows(to_numpy(value, source), f"x of {source}"),))
    several = signature is not None and len(signature.inputs) > 1
    is_x = several and isinstance(value, list) and all(map(_is_array, value))
    if isinstance(value, tuple) or is_x:
        x, y = _leaves(value, signature, source)
        return _as_rows(x, y, source)
    return _collect(value, signature, source)


def _as_rows(x: Sequence[NDArray[Any]], y: Sequence[NDArray[Any]], source: str) -> Arrays:
    def rows(arrays: Sequence[NDArray[Any]], what: str) -> tuple[ArrayRows, ...]:
        several = len(arrays) > 1
        return tuple(ArrayRows(a, f"{what}{f'[{i}]' if several else ''} of {source}") for i, a in enumerate(arrays))

    return Arrays(rows(x, "x"), rows(y, "y"))


_CONVERTERS: tuple[tuple[Callable[[Any], bool], Callable[[Any], Any]], ...] = (
    # A tensor of torch may be on a device or require gradients.
    (lambda x: hasattr(x, "detach") and hasattr(x, "cpu"), lambda x: x.detach().cpu().numpy()),
    (lambda _: True, np.asarray),
)
"""(whether x is this kind of array, its conversion to NumPy); the first match applies."""


def to_numpy(x: Any, source: str) -> NDArray[Any]:
    """An array or tensor of any framework, a number, or a list of them, as NumPy array of numbers.

    Raises:
        DataError: If it is none.
    """
    convert = next(convert for recognizes, convert in _CONVERTERS if recognizes(x))
    try:
        array = np.asarray(convert(x))
    except Exception as error:  # Frameworks raise errors of many classes.
        raise DataError(
            f"{source} gives something that is no array: {shortened(error)}. Received: {type(x).__name__}. {_FORMS}, "
            "all samples of one shape."
        ) from error
    if array.dtype.kind not in NUMBERS:
        if array.dtype.name == "bfloat16":
            return np.asarray(array, np.float32)
        raise DataError(
            f"{source} gives something that is no array of numbers. Received: {type(x).__name__}, of type "
            f"{array.dtype}. {_FORMS}, of numbers."
        )
    return array


def _leaves(batch: Any, signature: Signature | None, source: str) -> tuple[list[NDArray[Any]], list[NDArray[Any]]]:
    """The arrays of x and of y in a batch: x, (x, y) or (x, y, weights), or a dictionary of named arrays."""
    inputs = () if signature is None else signature.input_names
    outputs = () if signature is None else signature.output_names
    if isinstance(batch, Mapping):
        named = {str(key): ArrayRows(to_numpy(array, source), str(key)) for key, array in batch.items()}
        part = by_part(named, signature, source).get(WHOLE)
        if part is None:
            raise DataError(f"A batch of {source} names parts. Received: {', '.join(named)}. {_FORMS}.")
        return ([rows.array for rows in part.inputs], [rows.array for rows in part.targets])  # type: ignore[attr-defined]
    # DataLoaders collate samples into lists; for a model of several inputs a list of arrays is x, as Keras has it.
    several = isinstance(batch, list) and len(inputs) > 1 and all(map(_is_array, batch))
    pair = isinstance(batch, tuple | list) and not several
    if pair and not 1 <= len(batch) <= _LONGEST:
        raise DataError(
            f"A batch of {source} must be x, (x, y) or (x, y, weights). Received: {type(batch).__name__} of "
            f"{len(batch)} elements. {_FORMS}."
        )
    x, y = (batch[0], batch[1] if len(batch) > 1 else None) if pair else (batch, None)
    return _flat(x, inputs, source), ([] if y is None else _flat(y, outputs, source))


def _flat(value: Any, names: Sequence[str], source: str) -> list[NDArray[Any]]:
    if isinstance(value, Mapping):
        order = names if all(name in value for name in names) and names else tuple(value)
        if names and order != names and not len(names) == len(value) == 1:
            raise DataError(
                f"{source} names its arrays otherwise than the model. Received: {', '.join(map(repr, value))}. Name "
                f"them {', '.join(map(repr, names))}."
            )
        return [to_numpy(value[name], source) for name in order]
    if isinstance(value, tuple | list) and value and all(map(_is_array, value)):
        return [to_numpy(array, source) for array in value]
    return [to_numpy(value, source)]


@dataclass(frozen=True)
class _Stream:
    """The batches of some object.

    Args:
        batches: the batches, or samples.
        steps: how many there are, if that is known.
    """

    batches: Iterable[Any]
    steps: int | None = None


def _open(value: Any, source: str) -> _Stream:
    """The batches of an object, by the first row of the table that recognizes it."""
    for recognizes, read in _STREAMS:
        if recognizes(value):
            return read(value, source)
    raise DataError(f"{source} gives nothing that can be read as data. Received: {type(value).__name__}. {_FORMS}.")


def _is_tf_dataset(value: Any) -> bool:
    # If TensorFlow has not been imported by this process, the value can't be one of its datasets.
    tensorflow = sys.modules.get("tensorflow")
    return tensorflow is not None and isinstance(value, tensorflow.data.Dataset)


def _is_py_dataset(value: Any) -> bool:
    keras = sys.modules.get("keras")
    return keras is not None and isinstance(value, keras.utils.PyDataset)


def _tf_dataset(value: Any, source: str) -> _Stream:
    infinite, unknown = -1, -2  # tf.data.INFINITE_CARDINALITY, tf.data.UNKNOWN_CARDINALITY
    steps = int(value.cardinality())
    if steps == infinite:
        raise _endless(value, source, "`dataset.take(n)`, or drop the `repeat()`")
    return _Stream(value.as_numpy_iterator(), None if steps == unknown else steps)


def _py_dataset(value: Any, source: str) -> _Stream:
    try:
        steps = value.num_batches
    except NotImplementedError:  # Keras takes a PyDataset without a length for an infinite one.
        steps = None
    if steps is None:
        raise _endless(value, source, "a length, `__len__`")
    return _Stream((value[i] for i in range(steps)), steps)


def _indexed(value: Any, _: str) -> _Stream:
    """Read what has a length and takes indices, but is no iterable, such as a torch `Dataset`."""
    return _Stream((value[i] for i in range(len(value))), len(value))


def _iterable(value: Any, _: str) -> _Stream:
    # Unlike `len`, it also takes the TypeError of a DataLoader without a length for an unknown one.
    steps = operator.length_hint(value, -1)
    return _Stream(value, None if steps < 0 else steps)


def _no_data(value: Any, source: str) -> _Stream:
    raise DataError(
        f"{source} gives a text, and data are expected. Received: {value[:200]!r}. If it is a path, "
        f"give it in place of the function. {_FORMS}."
    )


_STREAMS: tuple[tuple[Callable[[Any], bool], Callable[[Any, str], _Stream]], ...] = (
    (_is_tf_dataset, _tf_dataset),
    (_is_py_dataset, _py_dataset),
    (lambda value: isinstance(value, str | bytes), _no_data),
    (lambda value: isinstance(value, Iterable), _iterable),
    (lambda value: hasattr(value, "__getitem__") and hasattr(value, "__len__"), _indexed),
)
"""(whether it is this kind of stream, how it is read); the first match applies."""


def _endless(value: Any, source: str, remedy: str) -> DataError:
    return DataError(
        f"The data of {source} never end. Received: {type(value).__name__} of infinite length. Give {remedy}."
    )


@dataclass
class _Leaf:
    """One array of a stream: its pieces so far."""

    pieces: list[NDArray[Any]] = field(default_factory=list)

    def joined(self, what: str, source: str) -> NDArray[Any]:
        """All pieces, one after the other; they are given up, since both would need twice the memory."""
        try:
            joined = np.concatenate(self.pieces)
        except ValueError as error:
            shapes = sorted({piece.shape[1:] for piece in self.pieces}, key=repr)
            raise DataError(
                f"All samples of {source} must have one shape. Received: {what} of shapes "
                f"{', '.join(map(str, shapes[:4]))}. Cut, pad or resize them to one."
            ) from error
        self.pieces.clear()
        return joined


def _collect(value: Any, signature: Signature | None, source: str) -> Arrays:
    """Read a stream to its end."""
    stream = _open(value, source)
    budget = memory().available * _SHARE
    x_leaves: list[_Leaf] = []
    y_leaves: list[_Leaf] = []
    filled = count = 0
    for count, batch in enumerate(track(_guarded(stream.batches, source), f"reading {source}", stream.steps), 1):
        x, y = _leaves(batch, signature, source)
        if _is_sample(x, signature):
            x, y = [a[np.newaxis] for a in x], [a[np.newaxis] for a in y]
        if count == 1:
            x_leaves, y_leaves = [_Leaf() for _ in x], [_Leaf() for _ in y]
        if (len(x), len(y)) != (len(x_leaves), len(y_leaves)):
            raise DataError(
                f"All batches of {source} must have the same structure. Received: batch {count} of {len(x)} input(s) "
                f"and {len(y)} label(s), behind others of {len(x_leaves)} and {len(y_leaves)}. {_FORMS} of one form."
            )
        for leaf, array in zip((*x_leaves, *y_leaves), (*x, *y), strict=True):
            leaf.pieces.append(array)
            filled += array.nbytes
        if filled > budget:
            raise DataError(
                f"The data of {source} don't fit in memory, or never end. Received: {count} batches of "
                f"{size_text(filled)} so far, of {size_text(budget / _SHARE)} available. Give fewer, or save them as "
                ".npy files in a folder or as HDF5, which are read as they are needed."
            )
    if not count:
        raise DataError(f"{source} gives no data. Received: {type(value).__name__} without a batch. {_FORMS}.")
    if stream.steps is not None and count < stream.steps:
        raise DataError(
            f"The data of {source} end early. Received: {count} of {stream.steps} batches. Correct its length."
        )
    x, y = ([leaf.joined(what, source) for leaf in leaves] for leaves, what in ((x_leaves, "x"), (y_leaves, "y")))
    order = _order(x, y)
    return _as_rows([array[order] for array in x], [array[order] for array in y], source)


def _order(x: Sequence[NDArray[Any]], y: Sequence[NDArray[Any]]) -> NDArray[np.int64]:
    """An order of the samples that their numbers alone decide.

    A stream may come in another order each time, from a loader that shuffles. What calibrated must not judge the next
    time, so the cut must not depend on that order.
    """
    if len({len(array) for array in (*x, *y)}) > 1:
        return np.arange(len(x[0]))  # It is refused where the set is made.
    rows = ((np.ascontiguousarray(array[i]).tobytes() for array in (*x, *y)) for i in range(len(x[0])))
    digests = [hashlib.blake2b(b"".join(parts), digest_size=16).digest() for parts in rows]
    return np.asarray(sorted(range(len(digests)), key=digests.__getitem__), np.int64)


def _is_sample(x: Sequence[NDArray[Any]], signature: Signature | None) -> bool:
    """Whether arrays are one sample, without a batch axis: all have the shape of their inputs, and one axis less."""
    specs: tuple[ArraySpec, ...] = () if signature is None else signature.inputs
    return len(specs) == len(x) and all(sizes_fit(spec.shape[1:], a.shape) for spec, a in zip(specs, x, strict=True))


def _guarded(batches: Iterable[Any], source: str) -> Iterator[Any]:
    """The batches, with errors of the user's code as errors that say where they were raised."""
    iterator = iter(batches)
    count = 0
    while True:
        try:
            batch = next(iterator)
        except StopIteration:
            return
        except DataError:
            raise
        except Exception as error:
            raise failed(f"Reading {source}, batch {count + 1},", error, source) from error
        count += 1
        yield batch
