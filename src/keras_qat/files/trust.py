"""Model files that run code when they are opened: which of them this tool wrote, and the user's word for all others.

TensorFlow runs the graph of a SavedModel while it loads it, and that graph may read and write any file
(https://github.com/tensorflow/tensorflow/blob/master/SECURITY.md); TensorRT runs the code in an engine. Such files are
opened if the user trusts them, or if this tool wrote them under the same user account. It remembers them by the SHA-256
of their contents, in the user's own data folder. Nothing in or beside a file counts, since whoever made the file could
have made that, too.
"""

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import platformdirs

from keras_qat.errors import StorageError, UserError
from keras_qat.files.paths import is_clutter
from keras_qat.files.storage import open_file

_CHUNK = 2**20

_GRAPHS = ("saved_model.pb", "saved_model.pbtxt")
"""The file that makes a folder a SavedModel: one of these."""


def remember_written(path: Path) -> None:
    """Remember a file or folder that was just written, so that it is trusted from now on.

    If the user's data folder can't be written, the file is as any other.

    Args:
        path: the file, or the folder of a SavedModel.
    """
    digest = _digest(path, _items(path))
    if digest is None:
        return
    with suppress(OSError):
        folder = _folder()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / digest).touch(mode=0o600)


def require_trusted(path: Path, *, trust: bool) -> None:
    """Refuse a file that runs code when it is opened, unless it is trusted or this tool wrote it.

    Args:
        path: the file, or the folder of a SavedModel.
        trust: whether the user trusts it.

    Raises:
        StorageError: If the file or folder is missing or can't be read, or a folder is no SavedModel or holds something
            that is neither a file nor a folder.
        UserError: If it is not trusted.

    Example:
        >>> require_trusted(Path("foreign.engine"), trust=True)
        Traceback (most recent call last):
        keras_qat.errors.StorageError: There is no model file of that name. ...
    """
    try:
        if path.is_dir() and not any((path / name).is_file() for name in _GRAPHS):
            raise StorageError(
                f"The folder is no SavedModel: it has no saved_model.pb. Received: {str(path)!r}. Give the folder that "
                "`export_saved_model` or Keras's `model.export` wrote."
            )
        items = _items(path)
        # The contents of what the user trusts aren't read: a model may have gigabytes.
        digest = None if trust else _digest(path, items)
        known = trust or (digest is not None and (_folder() / digest).is_file())
    except OSError as error:
        raise StorageError(
            f"The model can't be read: {error.strerror or error}. Received: {str(path)!r}. Make it readable."
        ) from error
    if not known:
        raise UserError(
            "A model of that kind runs code when it is opened, and keras-qat didn't write this one under your account. "
            f"Received: {str(path)!r}. If you trust whoever made it, give --trust, or trust=True in Python "
            "(docs/security.md)."
        )


def _folder() -> Path:
    return Path(platformdirs.user_data_path("keras-qat")) / "written"


def _digest(path: Path, items: Sequence[Path]) -> str | None:
    """The SHA-256 of a file, or of the names and contents of all files in a folder; `None` if the folder has links."""
    if path.is_file():
        return _digest_of_file(path)
    if any(item.is_symlink() for item in items):
        return None
    whole = hashlib.sha256()
    for item in items:
        if item.is_file():
            whole.update(f"{item.relative_to(path).as_posix()!r} {_digest_of_file(item)}\n".encode())
    return whole.hexdigest()


def _items(path: Path) -> list[Path]:
    """All that a folder holds, sorted, without what the operating system puts there; of a file nothing.

    Raises:
        StorageError: If nothing is at the path, or the folder holds something that is neither a file nor a folder.
    """
    if path.is_file():
        return []
    if not path.is_dir():
        raise StorageError(f"There is no model file of that name. Received: {str(path)!r}. Export or build it first.")
    items = sorted(item for item in path.rglob("*") if not is_clutter(item.name))
    for item in items:
        if not item.is_file() and not item.is_dir():
            raise StorageError(
                f"A folder of a model holds files and folders only. Received: {str(item)!r}, which is neither. Copy "
                "the model again."
            )
    return items


def _digest_of_file(path: Path) -> str:
    digest = hashlib.sha256()
    with open_file(path) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
