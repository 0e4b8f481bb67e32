"""Where the rows of an array lie: in memory, in a memory-mapped file, in HDF5, or in a file for each of them."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from keras_qat.data.fingerprint import digest_files, digest_rows
from keras_qat.errors import DataError
from keras_qat.files import open_file
from keras_qat.text import path_text, shortened

_AT_ONCE = 2**24
"""The bytes that are looked at at a time, where a whole array is looked through."""

_MOST_SEEN = 2**30
"""The bytes of an array that are looked through before it is used; every batch is checked again as it is read."""

_DENSE = 4
"""Rows of HDF5 are read with those between them if they are at most so many times as many: that is faster than row by
row."""

NUMBERS = "biuf"
"""The kinds of NumPy types that are numbers: booleans, integers and floats."""


class Rows(Protocol):
    """An array whose first axis counts samples, and of which any samples can be read."""

    @property
    def place(self) -> str:
        """What a message calls the array, such as `'x' of data.npz`."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape, the samples along the first axis."""

    @property
    def dtype(self) -> np.dtype:
        """The type of its numbers."""

    def read(self, indices: NDArray[np.int64]) -> NDArray[Any]:
        """The samples at `indices`, in that order."""

    def fingerprint(self) -> str:
        """A digest of the numbers; it stays the same if the data are moved as a whole."""


@dataclass(frozen=True, eq=False)
class ArrayRows:
    """Samples in memory, or in a memory-mapped file.

    Args:
        array: NumPy array of shape (n, …).
        place: what a message calls it.

    Example:
        >>> ArrayRows(np.arange(4) * 10, "'x'").read(np.array([3, 1]))
        array([30, 10])
    """

    array: NDArray[Any]
    place: str

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape, the samples along the first axis."""
        return tuple(self.array.shape)

    @property
    def dtype(self) -> np.dtype:
        """The type of its numbers."""
        return self.array.dtype

    def read(self, indices: NDArray[np.int64]) -> NDArray[Any]:
        """The samples at `indices`, in that order."""
        return np.asarray(self.array[indices])

    def fingerprint(self) -> str:
        """A digest of the numbers."""
        return digest_rows(self.shape, self.dtype, self.array.__getitem__)


@dataclass(frozen=True, eq=False)
class Hdf5Rows:
    """Samples in a data set of an HDF5 file, which is read as they are needed.

    Args:
        dataset: an open `h5py.Dataset` of shape (n, …).
        place: what a message calls it.
    """

    dataset: Any
    place: str

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape, the samples along the first axis."""
        return tuple(self.dataset.shape)

    @property
    def dtype(self) -> np.dtype:
        """The type of its numbers."""
        dtype: np.dtype = self.dataset.dtype
        return dtype

    def read(self, indices: NDArray[np.int64]) -> NDArray[Any]:
        """The samples at `indices`, in that order."""
        if not len(indices):
            return np.zeros((0, *self.shape[1:]), self.dtype)
        # h5py reads increasing indices, each once, and a slice at many times the speed.
        increasing, places = np.unique(indices, return_inverse=True)
        first, last = int(increasing[0]), int(increasing[-1]) + 1
        try:
            if last - first <= _DENSE * len(increasing):
                return np.asarray(self.dataset[first:last])[indices - first]
            return np.asarray(self.dataset[increasing])[places]
        except Exception as error:  # h5py raises errors of several classes for a file that is damaged.
            raise DataError(
                f"Can't read {self.place}: {shortened(error)}. Received: rows from {first} to {last - 1}. Write the "
                "file anew, and keep it unchanged as long as it is used."
            ) from error

    def fingerprint(self) -> str:
        """A digest of the numbers."""
        return digest_rows(self.shape, self.dtype, self.dataset.__getitem__)


@dataclass(frozen=True, eq=False)
class FileRows:
    """Samples of which each is an array in a file of its own, read when it is needed.

    Args:
        paths: one `.npy` or `.npz` file for each sample.
        key: the name of the array in each `.npz` file; `None` for `.npy` files.
        sample_shape: the shape of each sample.
        dtype: the type of its numbers.
        place: what a message calls them.
    """

    paths: Sequence[str]
    key: str | None
    sample_shape: tuple[int, ...]
    dtype: np.dtype
    place: str

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape, the samples along the first axis."""
        return (len(self.paths), *self.sample_shape)

    def read(self, indices: NDArray[np.int64]) -> NDArray[Any]:
        """The samples at `indices`, in that order.

        Raises:
            DataError: If a file can't be read, or holds an array of another shape than the first.
        """
        samples = [self._read_file(self.paths[index]) for index in indices]
        return np.stack(samples) if samples else np.zeros((0, *self.sample_shape), self.dtype)

    def fingerprint(self) -> str:
        """A digest of the files."""
        return digest_files(self.paths)

    def _read_file(self, path: str) -> NDArray[Any]:
        sample = load_array(path, self.key)
        if sample.shape != self.sample_shape:
            raise DataError(
                f"All samples must have one shape: the first of {self.place} has {self.sample_shape}. Received: "
                f"{path!r}, an array of shape {sample.shape}. Cut or pad the samples to one shape."
            )
        return sample


@dataclass(frozen=True, eq=False)
class ConvertedRows:
    """Samples that are converted as they are read: to another type, or without an axis of size 1.

    Args:
        rows: the samples as they are stored.
        sample_shape: the shape of each sample behind the conversion.
        dtype: the type of its numbers behind the conversion.
        convert: from an array of samples (n, …) to the converted ones.
    """

    rows: Rows
    sample_shape: tuple[int, ...]
    dtype: np.dtype
    convert: Callable[[NDArray[Any]], NDArray[Any]]

    @property
    def place(self) -> str:
        """What a message calls the array."""
        return self.rows.place

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape, the samples along the first axis."""
        return (self.rows.shape[0], *self.sample_shape)

    def read(self, indices: NDArray[np.int64]) -> NDArray[Any]:
        """The samples at `indices`, in that order."""
        return self.convert(self.rows.read(indices))

    def fingerprint(self) -> str:
        """A digest of the numbers as they are stored."""
        return self.rows.fingerprint()


def load_array(path: str | Path, key: str | None = None) -> NDArray[Any]:
    """Read an array of a `.npy` file, or one of the arrays of an `.npz` file, into memory.

    Args:
        path: the file.
        key: the name of the array in an `.npz` file.

    Raises:
        DataError: If the file is missing, broken, or holds Python objects, which would be code.
    """
    try:
        with open_file(path) as file:
            loaded = np.load(file, allow_pickle=False)
            return np.asarray(loaded if key is None else loaded[key])
    except Exception as error:  # NumPy and zipfile raise errors of many classes for files that are damaged.
        raise unreadable(path, error) from error


_PICKLED = ("allow_pickle", "Python objects")
"""What NumPy says of an array of Python objects."""


def unreadable(path: str | Path, error: Exception) -> DataError:
    """The error of a file of arrays that can't be read."""
    if any(sign in str(error) for sign in _PICKLED):
        reason = "it holds Python objects, which are not read, since they may be code"
        advice = "Save arrays of numbers, all samples of one shape."
    else:
        reason = getattr(error, "strerror", None) or shortened(error)
        advice = "Give a whole file, as `numpy.save`, `numpy.savez` or h5py writes it."
    return DataError(f"Can't read the array file {path_text(path)}: {reason}. Received: {str(path)!r}. {advice}")


def blocks(rows: Rows) -> Iterator[NDArray[Any]]:
    """The samples from the first on, some megabytes at a time, up to a gigabyte in all."""
    row = max(int(np.prod(rows.shape[1:], dtype=np.int64)) * rows.dtype.itemsize, 1)
    count = min(rows.shape[0], max(_MOST_SEEN // row, 1))
    for begin in range(0, count, max(_AT_ONCE // row, 1)):
        yield rows.read(np.arange(begin, min(begin + max(_AT_ONCE // row, 1), count)))


def require_finite(array: NDArray[Any], place: str, first: int | NDArray[np.int64] = 0) -> None:
    """Refuse NaN and infinity.

    Args:
        array: samples (n, …).
        place: what a message calls them.
        first: the index of the first sample, or the indices of all.

    Raises:
        DataError: If a number isn't finite; the message names the sample.
    """
    if array.dtype.kind != "f" or np.isfinite(array).all():
        return
    where = int(np.argwhere(~np.isfinite(array))[0][0])
    bad = float(array[where][~np.isfinite(array[where])].ravel()[0]) if array.ndim > 1 else float(array[where])
    index = int(first[where]) if isinstance(first, np.ndarray) else first + where
    raise DataError(
        f"{place} holds a number that is not finite. Received: {bad} in sample {index}, counted from 0. Remove such "
        "samples, or fill in what is missing as for training."
    )


def require_all_finite(rows: Rows) -> None:
    """Refuse NaN and infinity in the first gigabyte of an array, before anything is done with it.

    Raises:
        DataError: If a number isn't finite.
    """
    first = 0
    for block in blocks(rows) if rows.dtype.kind == "f" else ():
        require_finite(block, rows.place, first)
        first += len(block)
