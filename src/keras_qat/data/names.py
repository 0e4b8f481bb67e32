"""The names of data sets. The command line checks a name before it loads TensorFlow, so this imports no framework."""

from pathlib import Path

from keras_qat.errors import DataError
from keras_qat.files import is_folder

EMBEDDED = frozenset({"digits"})
"""The data sets that need no folder; `keras_qat.data.DATA_SETS` loads them."""

TFDS_PREFIX = "tfds:"
"""Stands before the name of a data set of TensorFlow Datasets."""


def require_source(source: str | Path) -> None:
    """Check that `source` names a data set or is a folder.

    Raises:
        DataError: If it is neither.

    Example:
        >>> require_source("digits")
        >>> require_source("")  # Python would take it for the current folder
        Traceback (most recent call last):
        keras_qat.errors.DataError: There is no data set or folder of that name. ...
        >>> require_source("nowhere")
        Traceback (most recent call last):
        keras_qat.errors.DataError: There is no data set or folder of that name. ...
    """
    name = str(source)
    if name.lower() in EMBEDDED or name.startswith(TFDS_PREFIX):
        return
    if not name or not is_folder(Path(source), DataError):
        raise unknown_source(source)


def unknown_source(source: str | Path) -> DataError:
    """The error of a data set that does not exist.

    Example:
        >>> str(unknown_source("nowhere")).split(". ")[1]
        "Received: 'nowhere'"
    """
    return DataError(
        f"There is no data set or folder of that name. Received: {str(source)!r}. "
        f"Give {', '.join(map(repr, sorted(EMBEDDED)))}, a folder of images (IMAGE, CLASS/IMAGE, or train/CLASS/IMAGE "
        f"and val/CLASS/IMAGE) or of TFRecord shards, or {TFDS_PREFIX}NAME."
    )
