"""What is at a path. Where the system won't say, that is an error to read and no traceback.

Up to Python 3.13 `Path.exists` and its like raise on a name that is too long, and on a folder that may not be entered.

Nothing written by halves: every file and folder is made under a temporary name, then renamed.

`os.replace` is atomic on one file system (POSIX `rename(2)`), so a reader, or a run that was killed, sees the old file
or the new one and never a part of one.
"""

import errno
import json
import math
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from keras_qat.errors import StorageError, UserError
from keras_qat.text import size_text


def is_there(path: Path, error: type[UserError] = StorageError) -> bool:
    """Whether a file or folder is at `path`.

    Args:
        path: to look at.
        error: what to raise.

    Raises:
        StorageError: the system refuses to look; or `error`, if another one is given.

    Example:
        >>> is_there(Path("/")), is_there(Path("nowhere"))
        (True, False)
    """
    return _asked(Path.exists, path, error)


def is_file(path: Path, error: type[UserError] = StorageError) -> bool:
    """Whether a file is at `path`; arguments and errors as of `is_there`.

    Example:
        >>> is_file(Path("/"))
        False
    """
    return _asked(Path.is_file, path, error)


def is_folder(path: Path, error: type[UserError] = StorageError) -> bool:
    """Whether a folder is at `path`; arguments and errors as of `is_there`.

    Example:
        >>> is_folder(Path("/"))
        True
    """
    return _asked(Path.is_dir, path, error)


def _asked(ask: Callable[[Path], bool], path: Path, error: type[UserError]) -> bool:
    try:
        return ask(path)
    except OSError as refused:
        raise error(
            f"That path can't be looked at: {refused.strerror or refused}. Received: {str(path)!r}. Name another one, "
            "or make the folders before it readable."
        ) from refused


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` when the block ends well, remove it otherwise.

    The temporary name keeps the suffix, since writers such as Keras choose the format by it. The block may write a
    file or a folder; a folder takes the place of another, a file doesn't.

    Raises:
        StorageError: the folder can't be made or written, the disk is full, or a folder is where the file should be.

    Example:
        >>> import tempfile
        >>> target = Path(tempfile.mkdtemp()) / "note.txt"
        >>> with atomic_path(target) as temporary:
        ...     _ = temporary.write_text("whole")
        >>> target.read_text(), len(list(target.parent.iterdir()))
        ('whole', 1)
    """
    temporary = path.with_name(f".{path.stem}-{uuid.uuid4().hex[:8]}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if path.is_dir() and not temporary.is_dir():
            raise IsADirectoryError(errno.EISDIR, "a folder is there, and a file would replace all that it holds")
        if path.is_dir():
            # A folder can't be replaced in one step: the old one steps aside first.
            aside = path.with_name(f".{path.name}-{uuid.uuid4().hex[:8]}.old")
            path.rename(aside)
            temporary.rename(path)
            shutil.rmtree(aside)
        else:
            temporary.replace(path)
    except OSError as error:
        raise StorageError(
            f"Can't write {path}: {error.strerror or error}. Received: {str(path)!r}. "
            "Choose a folder that you may write to, on a disk with room left."
        ) from error
    finally:
        # Below a file, or with too long a name, it can't even be looked at; the error that matters is on its way.
        with suppress(OSError):
            if temporary.is_dir():
                shutil.rmtree(temporary, ignore_errors=True)
            else:
                temporary.unlink(missing_ok=True)


def require_writable(folder: Path) -> None:
    """Make `folder` and prove that a file can be written there, before hours of work go into it.

    Raises:
        StorageError: the folder can't be made or written.
    """
    blocked = next((place for place in (folder, *folder.parents) if is_there(place) and not is_folder(place)), None)
    if blocked is not None:
        raise StorageError(
            f"Can't write to the folder {folder}: {blocked} is a file. Received: {str(folder)!r}. Name another folder."
        )
    probe = folder / f".probe-{os.getpid()}"
    with atomic_path(probe) as temporary:
        temporary.write_bytes(b"")
    probe.unlink(missing_ok=True)


def require_creatable(folder: Path) -> None:
    """Prove likewise that a folder can be made and written; leave none behind, since more may turn out to be wrong.

    Raises:
        StorageError: it can't.
    """
    made = [place for place in (folder, *folder.parents) if not is_there(place)]
    try:
        require_writable(folder)
    finally:
        for place in made:
            # Not made, or somebody put something there meanwhile.
            with suppress(OSError):
                place.rmdir()


def require_space(folder: Path, needed: int) -> None:
    """Refuse a disk that is too full, before hours of work go into what would not fit.

    Args:
        folder: an existing folder on that disk.
        needed: bytes.

    Raises:
        StorageError: there is less room.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise StorageError(
            f"The disk of {folder} is too full: {size_text(needed)} are needed. Received: {size_text(free)} free. "
            "Make room, or choose a folder on another disk."
        )


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` atomically, UTF-8.

    Raises:
        StorageError: `path` can't be written.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` to `path` as indented JSON that every reader takes (`to_json`), atomically.

    Raises:
        StorageError: `path` can't be written.
    """
    write_text(path, to_json(value))


def to_json(value: Any) -> str:
    """Indented JSON that every reader takes: RFC 8259 has no NaN and no Infinity, and null stands for them.

    Who has something to say of such a number puts the reason beside it, as `TensorError.to_dict` does.

    Example:
        >>> print(to_json({"count": 2, "worst": float("inf")}), end="")
        {
          "count": 2,
          "worst": null
        }
    """
    return json.dumps(_finite(value), indent=2, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    """The value with null where a number is infinite or none."""
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_text(path: Path) -> str:
    """The text of `path`, UTF-8.

    Raises:
        StorageError: `path` can't be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StorageError(
            f"Can't read {path}: {getattr(error, 'strerror', None) or error}. Received: {str(path)!r}. "
            "Give the path of a text file that you may read."
        ) from error


def read_json(path: Path) -> Any:
    """The value that the JSON file `path` holds.

    Raises:
        StorageError: `path` can't be read.
        UserError: it isn't JSON.
    """
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise UserError(f"{path} isn't JSON: {error}. Received: {str(path)!r}. Mend that line.") from error
