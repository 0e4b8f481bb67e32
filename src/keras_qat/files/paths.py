"""Checks of paths that users give, without TensorFlow, which takes seconds to load.

The command line makes these checks first. What reads a path makes them again, so that a mistake has the same message in
Python.
"""

from pathlib import Path

from keras_qat.errors import DataError, StorageError, WeightsError
from keras_qat.files.keras_archive import require_keras_archive
from keras_qat.files.storage import is_file, is_folder, is_there

RUN_MARKER = "settings.json"
"""The file that marks the folder of a run, there from its start."""

FACTS_FILE = "preprocessing.json"
"""The file beside a model that says how its images are prepared, and what its classes are."""

IMAGENET = "imagenet"
"""The name of the weights that Keras downloads."""

_CLUTTER = frozenset({".ds_store", "thumbs.db", "desktop.ini"})
"""The files in which file managers of macOS and Windows keep how a folder is shown, in lower case."""

_NFS = ".nfs"
"""So begins what a file on NFS is renamed to that was removed while a process had it open."""


def is_clutter(name: str) -> bool:
    """Whether a file of that name was put there by the operating system, and is part of no folder's contents.

    Args:
        name: the name of the file, without its folder.

    Example:
        >>> is_clutter(".DS_Store"), is_clutter(".nfs0000000000000001"), is_clutter("saved_model.pb")
        (True, True, False)
    """
    return name.lower() in _CLUTTER or name.startswith(_NFS)


_MODEL_SUFFIXES = frozenset({".keras", ".h5", ".hdf5"})

_SAVED_MODEL = "saved_model.pb"
"""The file by which TensorFlow knows the folder of a SavedModel."""


def is_model_path(path: Path) -> bool:
    """Whether a path has the suffix of a file in which Keras saves whole models.

    Example:
        >>> is_model_path(Path("mine.keras")), is_model_path(Path("mine.h5")), is_model_path(Path("resnet50"))
        (True, True, False)
    """
    return path.suffix.lower() in _MODEL_SUFFIXES


def require_model_file(path: Path) -> None:
    """Refuse a path that can't be a Keras model.

    Raises:
        StorageError: If there is no such file, if it is the folder of a SavedModel, or if it is a `.keras` file but not
            a zip archive of a model, or unpacks to too much.

    Example:
        >>> require_model_file(Path("nowhere.keras"))
        Traceback (most recent call last):
        keras_qat.errors.StorageError: There is no such model file. ...
    """
    if is_file(path / _SAVED_MODEL):
        raise StorageError(
            "A SavedModel has compiled functions and no layers that could be quantized. "
            f"Received: {str(path)!r}. Build or load the model in Python as when it was saved, and save it with "
            "`model.save('my.keras')`."
        )
    if not is_file(path):
        raise StorageError(f"There is no such model file. Received: {str(path)!r}. Give the path of a .keras file.")
    if path.suffix.lower() == ".keras":
        require_keras_archive(path)


def require_engine_model(path: Path) -> None:
    """Refuse the path of an engine's file or folder if nothing is there, or a device or pipe, which may never end.

    Raises:
        StorageError: If there is neither a regular file nor a folder at the path.

    Example:
        >>> require_engine_model(Path("nowhere.engine"))
        Traceback (most recent call last):
        keras_qat.errors.StorageError: There is no model file of that name. ...
    """
    if is_file(path) or is_folder(path):
        return
    if is_there(path):
        raise StorageError(
            f"A model is a regular file or a folder. Received: {str(path)!r}, a pipe or device. Copy it to a file."
        )
    raise StorageError(f"There is no model file of that name. Received: {str(path)!r}. Export or build it first.")


def require_onnx_file(path: Path) -> None:
    """Refuse the path of an ONNX file that doesn't exist.

    Raises:
        StorageError: If there is no file at the path.

    Example:
        >>> require_onnx_file(Path("nowhere.onnx"))
        Traceback (most recent call last):
        keras_qat.errors.StorageError: There is no ONNX file of that name. ...
    """
    if not is_file(path):
        raise StorageError(f"There is no ONNX file of that name. Received: {str(path)!r}. Export the model first.")


def require_image(path: Path) -> None:
    """Refuse the path of an image that doesn't exist.

    Raises:
        DataError: If there is no file at the path.

    Example:
        >>> require_image(Path("nowhere.png"))
        Traceback (most recent call last):
        keras_qat.errors.DataError: Can't read the image nowhere.png: there is no such file. ...
    """
    if not is_file(path, DataError):
        raise DataError(
            f"Can't read the image {path}: there is no such file. Received: {str(path)!r}. Give the path of an image."
        )


def require_weights(weights: str | Path) -> None:
    """Refuse weights that are neither those of ImageNet nor in a file.

    Raises:
        WeightsError: If there is no such file.

    Example:
        >>> require_weights("imagenet")
        >>> require_weights("nowhere.weights.h5")
        Traceback (most recent call last):
        keras_qat.errors.WeightsError: There is no such file of weights. ...
    """
    if str(weights) != IMAGENET and not is_file(Path(weights), WeightsError):
        raise WeightsError(
            f"There is no such file of weights. Received: {str(weights)!r}. Give a .weights.h5, .h5 or .keras file, "
            f"or {IMAGENET!r} to download."
        )


def require_no_run_file(path: Path) -> None:
    """Refuse to replace a file of a run, whose results would then be those of another file.

    Raises:
        StorageError: If something of that name is in the folder of a run.
    """
    if path.exists() and (path.parent / RUN_MARKER).is_file():
        raise StorageError(
            "A file of a run would be replaced, and its results would be those of another file. Received: "
            f"{str(path)!r}. Name another file with --output."
        )
