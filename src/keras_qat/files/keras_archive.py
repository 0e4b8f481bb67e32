"""Opening a `.keras` file: what is checked before Keras unpacks it, and loading it with errors that users can read.

A `.keras` file is a zip archive of `config.json`, `metadata.json` and `model.weights.h5`. Where the checksum of the
weights is wrong, Keras reads them without it, so a damaged file would give a model that computes something else.
Therefore all checksums are compared here first, which takes 0.1 s for 100 MB. HDF5 has none of its own.

An HDF5 file may name others, whose contents its readers give as its own, and data that take more memory than the file.
Whether Keras refuses such a file depends on its version and on the way that the file is read, so it is refused here.
"""

import io
import os
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

from keras_qat.errors import StorageError
from keras_qat.files import old_models
from keras_qat.text import shortened, size_text

UNPACK_LIMIT = "KERAS_QAT_UNPACK_LIMIT_GB"
"""The environment variable that raises the limit of `require_unpackable`."""

_LIMIT_GB, _LIMIT_RATIO = 1.0, 100
"""Networks compress little: an archive is refused that unpacks to more than 1 GB and more than 100 times its size."""

_CONFIG, _WEIGHTS = "config.json", "model.weights."

_BLOCK = 1 << 20

_LONGEST = 1200
"""The longest message of Keras that is quoted whole. It may quote the configuration of the model before the cause."""

_AGAIN = "Save it again with `model.save`, or copy it again."

_LAMBDA = (
    "A Lambda layer holds Python code, with which a file could do anything, so it isn't run from a file. Replace it by "
    "layers or operations of Keras, and save the model again. If you trust the file, load it in Python with "
    "`keras.saving.load_model(path, safe_mode=False)` and give the model to `keras_qat.quantize`."
)

_UNKNOWN = (
    "Keras doesn't know this class or function. A model with layers of your own must be read from Python: import the "
    "module that registers them with `keras.saving.register_keras_serializable`, load the model, and give it to "
    "`keras_qat.quantize`."
)

_REMEDIES = (("safe_mode", _LAMBDA), ("ould not locate ", _UNKNOWN))
"""(what is in Keras's message, what the user can do); the first that fits is taken."""


def require_keras_archive(path: Path) -> None:
    """Refuse a file that can't be a `.keras` archive, by its list of members, which takes a millisecond.

    Raises:
        StorageError: If the file isn't a whole zip archive, lacks a member that each model has, or unpacks to too much.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "text.keras"
        >>> path.write_text("no archive")
        10
        >>> require_keras_archive(path)
        Traceback (most recent call last):
        keras_qat.errors.StorageError: The file can't be read as a Keras model: it isn't a whole zip archive. ...
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except Exception as error:  # Python's reader raises errors of many kinds for archives that are damaged.
        raise _unreadable(path, "it isn't a whole zip archive") from error
    names = [member.filename for member in members]
    if _CONFIG not in names or not any(name.startswith(_WEIGHTS) for name in names):
        absent = _CONFIG if _CONFIG not in names else f"{_WEIGHTS}h5"
        raise _unreadable(path, f"it is a zip archive without {absent}", "Give a file that `model.save` wrote.")
    require_unpackable(path, members)


def require_unpackable(path: Path, members: list[zipfile.ZipInfo]) -> None:
    """Refuse an archive that unpacks to more than memory or disk may hold, as one does that was made for it.

    Python unpacks no more than the size that the archive names, so that size can be relied upon.

    Args:
        path: the archive.
        members: its members.

    Raises:
        StorageError: If it unpacks to more than 1 GB, or what the environment variable KERAS_QAT_UNPACK_LIMIT_GB says,
            and to more than 100 times its own size.
    """
    _require_in_limit(sum(member.file_size for member in members), path.stat().st_size, path)


def require_own_numbers(path: Path, content: "Path | BinaryIO | None" = None) -> None:
    """Refuse an HDF5 file whose numbers are in other files, or take more memory than a model's.

    Args:
        path: the file, or the archive that holds it.
        content: the HDF5 file in an archive; that at `path` if not given.

    Raises:
        StorageError: If a name in it is a link to another name or file, a data set lies in other files, or the data
            sets have more than 1 GB, or what the environment variable KERAS_QAT_UNPACK_LIMIT_GB says, and more than 100
            times the size of the file.
        Exception: Of any class, if it is no HDF5 file, or damaged.
    """
    import h5py

    with h5py.File(path if content is None else content, "r") as file:
        foreign, unpacked = foreign_numbers(file)
    if foreign:
        raise StorageError(
            f"The file holds numbers that are not its own: {foreign}. Received: {str(path)!r}. Keras writes no such "
            "file. Save the weights again with `model.save_weights` or `model.save`."
        )
    _require_in_limit(unpacked, path.stat().st_size, path)


def foreign_numbers(file: Any) -> tuple[str | None, int]:
    """Look for numbers that an open HDF5 file takes from elsewhere: through links, or data sets in other files.

    Args:
        file: the open `h5py.File`.

    Returns:
        What was found, or `None`; and the bytes of all data sets, as they are in memory.
    """
    import h5py

    sizes: list[int] = []

    # What these functions return ends the visit. An exception in them is lost in HDF5.
    def linked(name: str, link: Any) -> str | None:
        return None if isinstance(link, h5py.HardLink) else f"{name!r} is a link to another name or file"

    def elsewhere(name: str, item: Any) -> str | None:
        if not isinstance(item, h5py.Dataset):
            return None
        sizes.append((item.size or 0) * item.dtype.itemsize)  # The size is `None` where a data set holds nothing.
        return f"{name!r} lies in other data sets or files" if item.external or item.is_virtual else None

    return file.visititems_links(linked) or file.visititems(elsewhere), sum(sizes)


def _require_in_limit(unpacked: int, packed: int, path: Path) -> None:
    limit = _limit_gb()
    if unpacked > max(limit * 1e9, packed * _LIMIT_RATIO):
        raise StorageError(
            f"The file unpacks to {size_text(unpacked)}, {unpacked // max(packed, 1)} times its size, and no model "
            f"does. Received: {str(path)!r}. If you trust it, set the environment variable {UNPACK_LIMIT} to the "
            f"number of gigabytes that may be unpacked; it is {limit:g} now."
        )


def load_keras_file(path: Path) -> Any:
    """Load a Keras model from a `.keras` file, or an older `.h5` file.

    Args:
        path: the file.

    Returns:
        The `keras.Model`, not compiled.

    Raises:
        StorageError: If the file can't be read as a model. The message ends with what the user can do.
    """
    import keras

    archive = path.suffix.lower() == ".keras"
    if archive:
        require_keras_archive(path)
        _require_checksums(path)
    try:
        _require_own_numbers_of_archive(path) if archive else require_own_numbers(path)
        with old_models.readable_file(path) as readable:
            model = keras.saving.load_model(readable, compile=False, custom_objects=dict(old_models.OLD_CLASSES))
    except StorageError:
        raise
    except Exception as error:  # JSON, HDF5, unknown layers and the code of any layer each fail in their own way.
        text = shortened(error, _LONGEST)
        remedy = next((remedy for mark, remedy in _REMEDIES if mark in text), _AGAIN)
        raise _unreadable(path, text.rstrip("."), remedy) from error
    if not isinstance(model, keras.Model):
        raise _unreadable(path, f"it holds a {type(model).__name__}, which is no model")
    return model


def _require_checksums(path: Path) -> None:
    """Read all members to their ends, where Python compares the checksums."""
    name = ""
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                with archive.open(name) as member:
                    while member.read(_BLOCK):
                        pass
    except Exception as error:  # Each way of compression reports damage by an error of its own.
        problem = f"its {name} is damaged: {shortened(error)}"
        raise _unreadable(path, problem, "Copy or download it again.") from error


def _require_own_numbers_of_archive(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.endswith(".h5"):
                # In memory, since HDF5 reads back and forth, for which a packed member is unpacked again and again.
                require_own_numbers(path, io.BytesIO(archive.read(name)))


def _limit_gb() -> float:
    given = os.environ.get(UNPACK_LIMIT, "")
    try:
        return float(given or _LIMIT_GB)
    except ValueError:
        raise StorageError(
            f"{UNPACK_LIMIT} must be a number of gigabytes. Received: {given!r}. Set it to a number such as 4."
        ) from None


def _unreadable(path: Path, problem: str, remedy: str = _AGAIN) -> StorageError:
    return StorageError(f"The file can't be read as a Keras model: {problem}. Received: {str(path)!r}. {remedy}")
