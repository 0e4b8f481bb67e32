"""The folders that keras-qat writes several files to: the mark that they are its own, and the lock of who writes there.

A folder is marked by a hidden file. Files are removed from marked folders alone, by their exact names: a folder of the
user's that holds files of the same names is refused instead.

A folder is locked by filelock (https://py-filelock.readthedocs.io), whose locks are those of the operating system
(`flock(2)`): the lock of a process that was killed is free at once. The lock file says who has the lock, for whoever
comes second. It is removed while the lock is still held; filelock 4 sees that a file which it waited for is gone, and
locks the new one of that name.
"""

import errno
import json
import logging
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from keras_qat._version import __version__
from keras_qat.errors import StorageError, UserError
from keras_qat.files.atomic import clean_leftovers, is_temporary
from keras_qat.files.paths import is_clutter
from keras_qat.files.storage import is_folder, is_there, read_json, write_json
from keras_qat.text import first_few

_logger = logging.getLogger(__name__)

MARK = ".keras-qat.json"
"""The hidden file that marks a folder whose files keras-qat may replace."""

LOCK = ".keras-qat.lock"


def is_marked(folder: Path) -> bool:
    """Whether keras-qat marked the folder as its own.

    Example:
        >>> is_marked(Path("/"))
        False
    """
    return (folder / MARK).is_file()


def mark(folder: Path, content: str) -> None:
    """Mark a folder as one whose files keras-qat may replace.

    Args:
        folder: an existing folder.
        content: what the folder holds, such as `"run"`.

    Raises:
        StorageError: If the folder can't be written.
    """
    write_json(folder / MARK, {"content": content, "keras_qat": __version__})


def require_own(folder: Path, content: str, *, remedy: str) -> None:
    """Refuse a folder that holds files which keras-qat did not write.

    Args:
        folder: the folder, which may be missing or empty.
        content: what the folder would hold, such as `"a run"`.
        remedy: the advice of the message.

    Raises:
        StorageError: If the folder holds something and has no mark.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> require_own(folder, "a run", remedy="Name a new folder.")
        >>> (folder / "cat.png").touch()
        >>> require_own(folder, "a run", remedy="Name a new folder.")
        Traceback (most recent call last):
        keras_qat.errors.StorageError: The folder is not that of a run, and holds other files: cat.png. ...
    """
    if not is_folder(folder) or is_marked(folder):
        return
    try:
        names = sorted(path.name for path in folder.iterdir() if not _is_hidden(path.name))
    except OSError as error:
        raise StorageError(
            f"The folder can't be read: {error.strerror or error}. Received: {str(folder)!r}. {remedy}"
        ) from error
    if names:
        raise StorageError(
            f"The folder is not that of {content}, and holds other files: {first_few(names)}. "
            f"Received: {str(folder)!r}. {remedy}"
        )


def _is_hidden(name: str) -> bool:
    """Whether a file of that name is the mark, the lock, a temporary file, or what a file manager leaves."""
    return name in {MARK, LOCK} or is_temporary(name) or is_clutter(name)


def remove_own(folder: Path, names: Iterable[str]) -> None:
    """Remove files and folders of a marked folder by their exact names. A link is removed, and what it names stays.

    Args:
        folder: the folder.
        names: names of files and folders in it, which need not exist.

    Raises:
        StorageError: If a file can't be removed.
    """
    try:
        for path in (folder / name for name in names):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(
            f"A file of an earlier run can't be removed: {error.strerror or error}. Received: {str(folder)!r}. "
            "Make the folder writable, or name another one."
        ) from error


def require_apart(written: Iterable[Path], inputs: Iterable[Path]) -> None:
    """Refuse to replace what this call reads.

    Args:
        written: files and folders that will be replaced or removed.
        inputs: files and folders that this call reads.

    Raises:
        StorageError: If an input is one of those that are written, or inside of one.

    Example:
        >>> require_apart([Path("runs/ptq.onnx")], [Path("runs"), Path("my.keras")])
        >>> require_apart([Path("runs/../my.keras")], [Path("my.keras")])
        Traceback (most recent call last):
        keras_qat.errors.StorageError: An input of this command would be replaced. ...
    """
    replaced = {_real(path): path for path in written}
    for given in inputs:
        real = _real(given)
        for part in (real, *real.parents):
            if part in replaced:
                raise StorageError(
                    f"An input of this command would be replaced. Received: {str(given)!r}, and the output "
                    f"{str(replaced[part])!r}. Name another output."
                )


def _real(path: Path) -> Path:
    """The path with its links resolved; itself if it can't be, as with a loop of links."""
    with suppress(OSError, RuntimeError, ValueError):
        return path.resolve()
    return path.absolute()


@contextmanager
def locked(folder: Path, work: str) -> Iterator[None]:
    """Keep other processes from writing to `folder` within the block. What killed processes left there is removed.

    The folder is made if it is missing, and removed again if nothing was written to it.

    Args:
        folder: the folder.
        work: what is done there, such as `"a run"`.

    Raises:
        StorageError: If another process works there, or the folder can't be written.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with locked(folder, "a run"), locked(folder, "a run"):
        ...     pass
        Traceback (most recent call last):
        keras_qat.errors.StorageError: Another process works in this folder: ...
    """
    made = [path for path in (folder, *folder.parents) if not is_there(path)]
    lock: BaseFileLock = FileLock(folder / LOCK, thread_local=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=False)
        if not isinstance(lock, SoftFileLock):  # which holds the process itself, for file systems without `flock`
            with suppress(OSError):
                (folder / LOCK).write_text(json.dumps(_this_process(work)), encoding="utf-8")
    except Timeout as error:
        raise StorageError(
            f"Another process works in this folder: {_holder(folder)}. Received: {str(folder)!r}, for {work}. "
            "Wait until it is done, or name another folder."
        ) from error
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            _remove_empty(made)
            raise StorageError(
                f"Can't write to the folder, to lock it: {error.strerror or error}. Received: {str(folder / LOCK)!r}. "
                "Make the folder writable, or remove that file if no process works there."
            ) from error
        _logger.warning("%s can't be locked: %s. Start no other command there.", folder, error.strerror or error)
    try:
        clean_leftovers(folder)
        yield
    finally:
        _release(lock)
        _remove_empty(made)


_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP})
"""The errors of network file systems without locks."""


@contextmanager
def waiting_lock(path: Path, tell: Callable[[str], None]) -> Iterator[None]:
    """Let one process at a time make a file of a cache, so that those which come later find it.

    Without a folder that can be written, nothing is locked: such a process keeps nothing in the cache.

    Args:
        path: the file. Its lock file is hidden beside it.
        tell: called with a sentence if another process makes the file.

    Example:
        >>> import tempfile
        >>> with waiting_lock(Path(tempfile.mkdtemp()) / "ranges.json", print):
        ...     pass
    """
    lock = FileLock(path.with_name(f".{path.name}.lock"), thread_local=False)
    waiting = False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=False)
    except Timeout:
        waiting = True
    except OSError as error:
        _logger.debug("%s can't be locked: %s", path, error)
    if waiting:
        tell(f"Another process makes {path}; waiting for it.")
        lock.acquire()
    try:
        yield
    finally:
        _release(lock)


def _release(lock: BaseFileLock) -> None:
    if lock.is_locked:
        # Windows removes no open file: it stays there, and is locked again by the next process.
        with suppress(OSError):
            Path(lock.lock_file).unlink()
    lock.release()


def _this_process(work: str) -> dict[str, object]:
    return {
        "process": os.getpid(),
        "host": platform.node(),
        "program": Path(sys.argv[0]).name,
        "work": work,
        "since": time.strftime("%Y-%m-%d %H:%M:%S"),
    }


def _holder(folder: Path) -> str:
    """Who has the lock, as the lock file says; Windows keeps others from reading it."""
    try:
        holder = read_json(folder / LOCK)
        return f"process {holder['process']} on {holder['host']}, {holder['work']} since {holder['since']}"
    except (UserError, TypeError, KeyError):
        return "its lock is taken"


def _remove_empty(made: Iterable[Path]) -> None:
    """Remove the folders that were made for a lock, the inner ones first, if they are empty."""
    for path in made:
        with suppress(OSError):
            path.rmdir()
