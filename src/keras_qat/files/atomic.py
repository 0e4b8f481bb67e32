"""Writing files and folders such that a kill or a power cut leaves the old one or the new one, and never a part of one.

Each is written under a temporary name, put on the disk with `fsync(2)`, and then renamed. `os.replace` is atomic on one
file system (POSIX `rename(2)`). The temporary names are hidden, and say which process uses them: what a killed process
left is removed by the next one that writes to the folder.
"""

import errno
import itertools
import os
import platform
import re
import shutil
import stat
import time
import uuid
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from keras_qat.errors import StorageError


def _host() -> str:
    """The host, as 8 digits. Containers of one host number their processes each for itself, and are hosts here."""
    namespace = ""
    with suppress(OSError):
        namespace = str(Path("/proc/self/ns/pid").readlink())
    return f"{zlib.crc32(f'{platform.node()} {namespace}'.encode()):08x}"


_PROCESS = f"{_host()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
"""The host, the number and a random name of this process: another one may have its number later."""

_NUMBERS = itertools.count()

_LEFTOVER = re.compile(
    r"\.(?P<name>.*)\.(?P<process>(?P<host>[0-9a-f]{8})-(?P<pid>\d+)-[0-9a-f]{8})-\d+\.(?P<kind>tmp|old)"
)

_ABANDONED_S = 24 * 3600
"""The age at which a temporary file of another host is one of a dead process. Its processes can't be seen from here."""

_LONGEST_STEM = 100

_FULL = (errno.ENOSPC, errno.EDQUOT)
"""The numbers of errors of a full disk: no space is left on it, or no quota for this user."""


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` if the block succeeds, remove it otherwise.

    The temporary name keeps the suffix, since writers such as Keras choose the format by it. The block may write a
    file or a folder. A folder may replace a folder; a file may not. What other processes left in the folder when they
    were killed is removed.

    Raises:
        StorageError: If the folder can't be made or written, the disk is full, a file would replace a folder, or there
            is a link, a device or a pipe at `path`.

    Example:
        >>> import tempfile
        >>> target = Path(tempfile.mkdtemp()) / "note.txt"
        >>> with atomic_path(target) as temporary:
        ...     _ = temporary.write_text("whole")
        >>> target.read_text(), len(list(target.parent.iterdir()))
        ('whole', 1)
    """
    temporary = beside(path, f"tmp{path.suffix}")
    try:
        require_replaceable(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        clean_leftovers(path.parent)
        yield temporary
        commit(temporary, path)
    except Exception as error:
        # TensorFlow reports a full disk by an error of its own.
        if isinstance(error, StorageError) or not (isinstance(error, OSError) or is_disk_full(error)):
            raise
        raise StorageError(
            f"Can't write {path}: {getattr(error, 'strerror', None) or error}. Received: {str(path)!r}. "
            "Choose a folder that you may write to, on a disk with room left."
        ) from error
    finally:
        # Looking at it fails below a file, and for a name that is too long. The error above is the one to report.
        with suppress(OSError, ValueError):
            _remove(temporary)


def is_disk_full(error: BaseException) -> bool:
    """Whether an error, or one that it came from, says that the disk has no room left, or the user no share of it.

    Operating systems give a number for it. HDF5 and TensorFlow keep only its text, and TensorFlow's
    `ResourceExhaustedError` is that of a full memory as well.

    Example:
        >>> is_disk_full(OSError(errno.ENOSPC, "No space left on device")), is_disk_full(MemoryError())
        (True, False)
    """
    if isinstance(error, OSError) and error.errno in _FULL:
        return True
    if any(os.strerror(number) in str(error) for number in _FULL):
        return True
    source = error.__cause__ or error.__context__
    return source is not None and is_disk_full(source)


def commit(temporary: Path, path: Path) -> None:
    """Rename a file or folder that is fully written to `path`, such that a power cut leaves the old one or the new one.

    A file system may write the new name to the disk before the contents: after a power cut, the file would be empty.
    Therefore the contents are written first (`fsync(2)`), and the folder after the renaming.

    Args:
        temporary: the file or folder, on the file system of `path`.
        path: the new path. What is there is replaced.

    Raises:
        OSError: If the system refuses it, or a file would replace a folder.
    """
    if path.is_dir() and not temporary.is_dir():
        raise IsADirectoryError(errno.EISDIR, "a folder is there, and a file would replace all that it holds")
    for written in (*temporary.rglob("*"), temporary):
        _sync(written)
    if path.is_dir():
        # A folder can't be replaced in one step: the old one is renamed first. `clean_leftovers` renames it back if
        # the process is killed in between.
        aside = beside(path, "old")
        path.rename(aside)
        try:
            temporary.rename(path)
        except BaseException:
            aside.rename(path)
            raise
        _sync(path.parent)
        shutil.rmtree(aside)
    else:
        temporary.replace(path)
        _sync(path.parent)


def require_replaceable(path: Path) -> None:
    """Refuse to replace a link, whose target the user may mean, or a device or pipe, which is no file.

    Raises:
        StorageError: If there is such a thing at `path`, or the path can't be looked at.

    Example:
        >>> require_replaceable(Path("/dev/null"))
        Traceback (most recent call last):
        keras_qat.errors.StorageError: An output replaces nothing but a file or folder. ...
    """
    try:
        # The libraries that write models can't be given another name.
        str(path).encode()
        mode = path.lstat().st_mode
    except UnicodeEncodeError as error:
        raise StorageError(
            f"The name of an output is text, and this one isn't UTF-8. Received: {str(path)!r}. Name another one."
        ) from error
    except (FileNotFoundError, NotADirectoryError):
        return
    except (OSError, ValueError) as error:
        raise StorageError(
            f"That path can't be looked at: {getattr(error, 'strerror', None) or error}. Received: {str(path)!r}. "
            "Name another one."
        ) from error
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        return
    kind = "a link" if stat.S_ISLNK(mode) else "a device, pipe or socket"
    raise StorageError(
        f"An output replaces nothing but a file or folder. Received: {str(path)!r}, which is {kind}. Name a file."
    )


def beside(path: Path, ending: str) -> Path:
    """A hidden name in the same folder that no other process uses, and that `clean_leftovers` knows.

    Args:
        path: what the name is made of.
        ending: "old" for a folder that is set aside; otherwise it begins with "tmp".
    """
    # The name of a folder that is set aside stays whole, so that it can get it back.
    name = path.name if ending == "old" else path.stem[:_LONGEST_STEM]
    return path.with_name(f".{name}.{_process()}-{next(_NUMBERS)}.{ending}")


def _process() -> str:
    """`_PROCESS`, also after a fork."""
    host, _, name = _PROCESS.split("-")
    return f"{host}-{os.getpid()}-{name}"


def is_temporary(name: str) -> bool:
    """Whether a file of that name is a temporary one of `atomic_path`.

    Example:
        >>> is_temporary(".ptq.0123abcd-77-0123abcd-0.tmp.onnx"), is_temporary("ptq.onnx")
        (True, False)
    """
    return _LEFTOVER.match(name) is not None


def clean_leftovers(folder: Path) -> None:
    """Remove the temporary files that killed processes left in `folder`.

    A folder that was set aside and not replaced gets its name back. Nothing is reported if this fails: the files are
    hidden, and the next process tries again.
    """
    with suppress(OSError):
        for entry in list(os.scandir(folder)):
            leftover = _LEFTOVER.match(entry.name)
            if leftover is None or _alive(leftover, entry):
                continue
            path, original = Path(entry.path), folder / leftover["name"]
            with suppress(OSError):
                if leftover["kind"] == "old" and not os.path.lexists(original):
                    path.rename(original)
                else:
                    _remove(path)


def _alive(leftover: "re.Match[str]", entry: "os.DirEntry[str]") -> bool:
    """Whether the process that made a temporary file may still write it."""
    if leftover["process"] == _process():
        return True
    if leftover["host"] != _PROCESS.partition("-")[0]:
        return time.time() - entry.stat(follow_symlinks=False).st_mtime < _ABANDONED_S
    # This process has the number of one that is gone.
    return int(leftover["pid"]) != os.getpid() and psutil.pid_exists(int(leftover["pid"]))


def _sync(path: Path) -> None:
    """Have a file or folder written to the disk, where the system can do that."""
    windows = os.name == "nt"
    if windows and path.is_dir():
        return
    try:
        descriptor = os.open(path, os.O_RDWR if windows else os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        # Some file systems have no `fsync` of folders, and a folder may be writable but not readable.
        if not path.is_dir() or error.errno not in {errno.EINVAL, errno.ENOTSUP, errno.EACCES}:
            raise


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
