"""The kinds of data sets by name, path and what a folder holds.

The command line checks a name before it loads TensorFlow, so this imports no framework.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from keras_qat.data.user_function import is_function, require_function
from keras_qat.errors import DataError
from keras_qat.files import is_file, is_folder, is_there

EMBEDDED = frozenset({"digits"})
"""The data sets that need no folder; `keras_qat.data.DATA_SETS` loads them."""

TFDS_PREFIX = "tfds:"
"""Stands before the name of a data set of TensorFlow Datasets."""

Kind = Literal["embedded", "tfds", "function", "array file", "csv", "shards", "dataset", "masks", "arrays", "images"]
"""A kind of data set; `SOURCE_KINDS` in `load.py` has a row for each."""

_OF_IMAGES: frozenset[Kind] = frozenset({"embedded", "tfds", "csv", "shards", "masks", "images"})
"""The kinds whose inputs are images, which a `Preprocessing` prepares."""

ARRAY_SUFFIXES = frozenset({".npy", ".npz", ".h5", ".hdf5"})
CSV_SUFFIXES = frozenset({".csv", ".tsv"})

IMAGES, MASKS = "images", ("masks", "labels", "annotations", "segmentations")
"""The folder of images with masks, and the names that the folder of their masks may have."""

PART_FOLDERS = ("train", "val")
"""The folders of a data set that is cut already."""

_SAVED_DATASET = ("dataset_spec.pb", "snapshot.metadata")
"""The files of a folder that `tf.data.Dataset.save` wrote."""

_FUNCTION = "write a function that returns it, and name that: my_data.py:load"

_UNREAD: Mapping[str, str] = {
    ".pkl": "Pickled objects may be code. Save arrays with `numpy.savez`",
    ".pickle": "Pickled objects may be code. Save arrays with `numpy.savez`",
    ".pt": f"For a file of torch, {_FUNCTION}",
    ".pth": f"For a file of torch, {_FUNCTION}",
    ".mat": "Read it with `scipy.io.loadmat`, and save the arrays with `numpy.savez`",
    ".parquet": f"For a table of Parquet, {_FUNCTION}",
    ".feather": f"For a table of Feather, {_FUNCTION}",
    ".xlsx": "Save the table as CSV, with paths of images in its first column",
    ".json": f"For annotations in JSON, {_FUNCTION}",
    ".jsonl": f"For annotations in JSON, {_FUNCTION}",
    ".txt": "Save a list of paths and labels as CSV",
    ".zip": "Unpack the archive, and give the folder",
    ".tar": "Unpack the archive, and give the folder",
    ".gz": "Unpack the archive, and give what is in it",
    ".tgz": "Unpack the archive, and give the folder",
    ".tfrecord": "Give the folder of the shards",
    ".keras": "That is a model. Give its data",
    ".onnx": "That is a model. Give its data",
    ".py": "Name the function that returns the data, behind a colon: my_data.py:load",
    ".wav": f"For sounds, {_FUNCTION}",
    ".mp4": f"For videos, {_FUNCTION}",
    ".nii": f"For volumes, {_FUNCTION}",
    ".dcm": f"For DICOM images, {_FUNCTION}",
}
"""What to do with a file of a kind that isn't read, by its suffix."""

READ = (
    "a folder of images (IMAGE, CLASS/IMAGE, or train/CLASS/IMAGE and val/CLASS/IMAGE), of images/ and masks/, of .npy "
    "or .npz files, of TFRecord shards, or of a saved tf.data dataset; a file .npy, .npz, .h5, .hdf5, or .csv of paths "
    f"and labels; module:function; or {TFDS_PREFIX}NAME"
)
"""What is read, for messages."""


def require_source(source: str | Path) -> None:
    """Check that `source` is a data set of a known kind, as far as names tell.

    Raises:
        DataError: If there is nothing of that name, a file is of a kind that isn't read, or a module lacks the
            function.

    Example:
        >>> require_source("digits")
        >>> require_source("")  # Python would take it for the current folder
        Traceback (most recent call last):
        keras_qat.errors.DataError: There is no data set or folder of that name. ...
        >>> require_source("nowhere")
        Traceback (most recent call last):
        keras_qat.errors.DataError: There is no data set or folder of that name. ...
    """
    if kind_of(source) == "function":
        require_function(str(source))


def reads_images(source: str | Path) -> bool:
    """Whether the inputs of a data set are images, which need a `Preprocessing`; arrays are fed as they are.

    Raises:
        DataError: As for `require_source`.

    Example:
        >>> reads_images("digits"), reads_images("my_data.py:load")
        (True, False)
    """
    return kind_of(source) in _OF_IMAGES


def kind_of(source: str | Path) -> Kind:
    """The kind of a data set: the first row of the table that accepts it.

    Raises:
        DataError: If there is nothing of that name, or a file is of a kind that isn't read.
    """
    # Python would take the empty name for the current folder.
    kind = next((kind for kind, accepts in _KINDS if str(source) and accepts(source)), None)
    if kind is None:
        raise unknown_source(source)
    return kind


def _is_embedded(source: str | Path) -> bool:
    return isinstance(source, str) and source.lower() in EMBEDDED


def _is_tfds(source: str | Path) -> bool:
    return isinstance(source, str) and source.startswith(TFDS_PREFIX)


def _names_function(source: str | Path) -> bool:
    return isinstance(source, str) and is_function(source) and not is_there(Path(source), DataError)


def _has_suffix(suffixes: frozenset[str]) -> Callable[[str | Path], bool]:
    return lambda source: Path(source).suffix.lower() in suffixes and is_file(Path(source), DataError)


def _in_folder(holds: Callable[[Path], bool]) -> Callable[[str | Path], bool]:
    return lambda source: is_folder(Path(source), DataError) and holds(Path(source))


def _holds_shards(folder: Path) -> bool:
    from keras_qat.data.records.shard_names import has_shards

    return has_shards(folder)


def _holds_dataset(folder: Path) -> bool:
    return all(is_file(folder / name, DataError) for name in _SAVED_DATASET)


def _holds_masks(folder: Path) -> bool:
    """Whether a folder, or one of its parts, has both a folder of images and one of masks."""
    places = (folder, *(folder / part for part in PART_FOLDERS))
    return any(is_folder(place / IMAGES, DataError) and is_folder(masks_of(place), DataError) for place in places)


def masks_of(folder: Path) -> Path:
    """The folder of masks beside the folder of images in `folder`, whether it is there or not."""
    return next((folder / name for name in MASKS if is_folder(folder / name, DataError)), folder / MASKS[0])


def _holds_arrays(folder: Path) -> bool:
    """Whether a folder holds files of arrays and no images, in itself or in folders of its parts."""
    from keras_qat.data.arrays.parts import PARTS
    from keras_qat.data.image_files import is_array_file, is_image, visible

    entries = visible(folder)
    if any(map(is_image, entries)):
        return False
    if any(map(is_array_file, entries)):
        return True
    parts = [entry for entry in entries if entry.is_folder and entry.name.lower() in PARTS]
    return any(any(map(is_array_file, visible(Path(part.path)))) for part in parts)


_KINDS: tuple[tuple[Kind, Callable[[str | Path], bool]], ...] = (
    ("embedded", _is_embedded),
    ("tfds", _is_tfds),
    ("array file", _has_suffix(ARRAY_SUFFIXES)),
    ("csv", _has_suffix(CSV_SUFFIXES)),
    ("shards", _in_folder(_holds_shards)),
    ("dataset", _in_folder(_holds_dataset)),
    ("masks", _in_folder(_holds_masks)),
    ("arrays", _in_folder(_holds_arrays)),
    ("images", _in_folder(lambda _: True)),
    ("function", _names_function),
)
"""(a kind of data set, whether a source is of it); the first match applies."""


def unknown_source(source: str | Path) -> DataError:
    """The error of a data set that does not exist, or of a file of a kind that isn't read.

    Example:
        >>> str(unknown_source("nowhere")).split(". ")[1]
        "Received: 'nowhere'"
    """
    path = Path(source)
    if str(source) and is_file(path, DataError):
        from keras_qat.data.image_files import IMAGE_SUFFIXES

        suffix = path.suffix.lower()
        one_image = "That is a single image. Give a folder of many" if suffix in IMAGE_SUFFIXES else None
        advice = _UNREAD.get(suffix) or one_image or f"For a file of another kind, {_FUNCTION}"
        return DataError(
            f"Data of the kind {suffix or 'of a file without suffix'!r} are not read. Received: {str(source)!r}. "
            f"{advice}. What is read: {READ}."
        )
    return DataError(
        f"There is no data set or folder of that name. Received: {str(source)!r}. "
        f"Give {', '.join(map(repr, sorted(EMBEDDED)))}, {READ}."
    )
