"""Files of arrays: `.npy`, `.npz`, HDF5, and folders of the first two.

x.npy                                  inputs alone
data.npz, data.h5                      named arrays
FOLDER/x.npy, FOLDER/y_train.npy …     named arrays, a file for each
FOLDER/train.npz, FOLDER/test.npz      named arrays, a file for each part
FOLDER/0001.npz, FOLDER/0002.npz …     a sample in each file; likewise in FOLDER/train and FOLDER/val
"""

import math
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy_format

from keras_qat.data.arrays.parts import NAMING, PARTS, WHOLE, Arrays, by_part, is_role, part_and_role
from keras_qat.data.arrays.rows import ArrayRows, FileRows, Hdf5Rows, Rows, load_array, unreadable
from keras_qat.data.image_files import is_array_file, visible
from keras_qat.data.signature import Signature
from keras_qat.errors import DataError
from keras_qat.files import foreign_numbers, open_file
from keras_qat.machine import memory
from keras_qat.text import path_text, size_text

Opened = Mapping[str, Arrays]
"""The arrays of each part of a data set."""

_KERAS_MODEL = frozenset({"model_config", "keras_version", "layer_names"})
"""The attributes of an HDF5 file in which Keras saved a model or weights."""


def open_npy(path: Path, signature: Signature | None) -> Opened:
    """The inputs in a `.npy` file, memory-mapped.

    Raises:
        DataError: If the file can't be read, or the model has several inputs.
    """
    if signature is not None and len(signature.inputs) > 1:
        raise DataError(
            f"A .npy file holds one array, and the model has the inputs {', '.join(signature.input_names)}. "
            f"Received: {str(path)!r}. Give an .npz file, or a folder of .npy files, with these names."
        )
    return {WHOLE: Arrays((_mapped(path),))}


def _mapped(path: Path) -> Rows:
    try:
        with open_file(path):  # Refuses what is no regular file, and may never end.
            return ArrayRows(np.load(path, mmap_mode="r", allow_pickle=False), path_text(path.name))
    except Exception as error:  # NumPy raises errors of many classes for files that are damaged.
        raise unreadable(path, error) from error


def open_npz(path: Path, signature: Signature | None) -> Opened:
    """The arrays in an `.npz` file, read into memory.

    Raises:
        DataError: If the file can't be read or is larger than the memory, or its names don't say what is what.
    """
    return by_part(_npz_arrays(path), signature, path_text(path))


def _npz_arrays(path: Path) -> dict[str, Rows]:
    try:
        with open_file(path) as file, zipfile.ZipFile(file) as archive:
            sizes = {name: _npy_bytes(archive, name) for name in archive.namelist() if name.endswith(".npy")}
    except Exception as error:
        raise unreadable(path, error) from error
    require_memory(sum(sizes.values()), str(path))
    keys = [name.removesuffix(".npy") for name in sizes]
    return {key: ArrayRows(load_array(path, key), _place(key, path)) for key in keys}


def _npy_bytes(archive: zipfile.ZipFile, name: str) -> int:
    """The bytes that an array in an `.npz` file takes in memory; the array is not read."""
    with archive.open(name) as member:
        version = npy_format.read_magic(member)
        read = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
        shape, _, dtype = read(member)
    return math.prod(shape) * dtype.itemsize


def _place(key: str, path: Path) -> str:
    return f"{key!r} of {path_text(path.name)}"


def require_memory(needed: int, place: str) -> None:
    """Refuse arrays that the memory can't hold.

    Raises:
        DataError: If they need more than is available now.
    """
    available = memory().available
    if needed > available:
        raise DataError(
            f"The arrays need {size_text(needed)} of memory, and {size_text(available)} are available. Received: "
            f"{place!r}. Save them as .npy files in a folder, or as HDF5: those are read as they are needed."
        )


def open_hdf5(path: Path, signature: Signature | None) -> Opened:
    """The data sets of an HDF5 file, whose rows are read as they are needed.

    Raises:
        DataError: If the file can't be read, is a Keras model, takes numbers from other files, or its names don't say
            what is what.
    """
    import h5py

    try:
        with open_file(path):
            file = h5py.File(path, "r")
        foreign, _ = foreign_numbers(file)
        saved = sorted(_KERAS_MODEL & set(file.attrs))
        found: dict[str, Any] = {}
        file.visititems(lambda name, item: found.update({name: item}) if isinstance(item, h5py.Dataset) else None)
    except Exception as error:  # h5py raises errors of several classes for files that are damaged.
        raise unreadable(path, error) from error
    if saved or "_layer_checkpoint_dependencies" in file or "layers" in file:
        raise DataError(
            f"The HDF5 file holds a Keras model or its weights, and no data. Received: {str(path)!r}. Give it "
            f"as the model, and as data a file with the arrays {NAMING}."
        )
    if foreign:
        raise DataError(
            f"The HDF5 file takes numbers from elsewhere: {foreign}. Received: {str(path)!r}. Copy them into the file."
        )
    # A small file may declare any number of rows; an index and a label of each are kept.
    require_memory(16 * max((item.shape[0] for item in found.values() if item.shape), default=0), str(path))
    arrays = {name: Hdf5Rows(item, _place(name, path)) for name, item in found.items() if item.shape is not None}
    return by_part(arrays, signature, path_text(path))


def open_folder(folder: Path, signature: Signature | None) -> Opened:
    """The arrays of a folder of `.npy` and `.npz` files.

    Raises:
        DataError: If a file can't be read, or the names of the files don't say what is what.
    """
    entries = [entry for entry in visible(folder) if is_array_file(entry)]
    if not entries:
        return _open_part_folders(folder, signature)
    if all(_names_an_array(Path(entry.name), signature) for entry in entries):
        mapped = {Path(entry.name).stem: _mapped(Path(entry.path)) for entry in entries}
        return by_part(mapped, signature, path_text(folder))
    if all(Path(entry.name).stem.lower() in PARTS for entry in entries):
        files = [(Path(entry.name).stem, Path(entry.path)) for entry in entries]
        named = {f"{part}/{key}": rows for part, path in files for key, rows in _arrays_of(path).items()}
        return by_part(named, signature, path_text(folder))
    return by_part(_samples([entry.path for entry in entries], folder), signature, path_text(folder))


def _names_an_array(path: Path, signature: Signature | None) -> bool:
    return path.suffix.lower() == ".npy" and is_role(part_and_role(path.stem)[1], signature)


def _arrays_of(path: Path) -> dict[str, Rows]:
    return _npz_arrays(path) if path.suffix.lower() == ".npz" else {"x": _mapped(path)}


def _open_part_folders(folder: Path, signature: Signature | None) -> Opened:
    """The arrays of folders that are named after parts, such as train/0001.npz and val/0001.npz."""
    named: dict[str, Rows] = {}
    for entry in visible(folder):
        if entry.is_folder and entry.name.lower() in PARTS:
            files = [inner for inner in visible(Path(entry.path)) if is_array_file(inner)]
            if not files:
                continue
            whole = all(_names_an_array(Path(inner.name), signature) for inner in files)
            arrays: Mapping[str, Rows] = (
                {Path(inner.name).stem: _mapped(Path(inner.path)) for inner in files}
                if whole
                else _samples([inner.path for inner in files], Path(entry.path))
            )
            named.update({f"{entry.name}/{key}": rows for key, rows in arrays.items()})
    return by_part(named, signature, path_text(folder))


def _samples(paths: Sequence[str], folder: Path) -> dict[str, Rows]:
    """Samples of which each lies in a file of its own; the first file tells their shapes and types."""
    suffixes = {Path(path).suffix.lower() for path in paths}
    if len(suffixes) != 1:
        raise DataError(
            f"A folder holds samples in .npy files, or in .npz files, one in each. Received: both in {str(folder)!r}. "
            "Move the others away."
        )
    first = paths[0]
    keys = _npz_arrays(Path(first)) if suffixes == {".npz"} else {None: ArrayRows(load_array(first), first)}

    def rows(key: str | None, sample: Rows) -> Rows:
        named = f"{key!r} of the samples" if key else "the samples"
        return FileRows(paths, key, sample.shape, sample.dtype, f"{named} of {path_text(folder.name)}")

    return {key or "x": rows(key, sample) for key, sample in keys.items()}


OPENERS: Mapping[str, Callable[[Path, Signature | None], Opened]] = {
    ".npy": open_npy,
    ".npz": open_npz,
    ".h5": open_hdf5,
    ".hdf5": open_hdf5,
}
"""How a file of arrays is opened, by its suffix."""
