"""Looking at paths, and reading and writing files, with errors that users can read.

Up to Python 3.13, `Path.exists` and similar methods raise on a name that is too long, and on a folder that may not be
entered.
"""

import errno
import io
import json
import math
import os
import shutil
import stat
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from keras_qat.errors import StorageError, UserError
from keras_qat.files.atomic import atomic_path, beside
from keras_qat.text import one_line, printable, size_text

_SHOWN = 80
"""Characters of a text that a message quotes."""


def is_there(path: Path, error: type[UserError] = StorageError) -> bool:
    """Whether a file or folder is at `path`.

    Args:
        path: the path to look at.
        error: the error to raise.

    Raises:
        StorageError: If the system refuses to look at the path; `error` if another one is given.

    Example:
        >>> is_there(Path("/")), is_there(Path("nowhere"))
        (True, False)
    """
    return _check(Path.exists, path, error)


def is_file(path: Path, error: type[UserError] = StorageError) -> bool:
    """Whether a file is at `path`. Arguments and errors are those of `is_there`.

    Example:
        >>> is_file(Path("/"))
        False
    """
    return _check(Path.is_file, path, error)


def is_folder(path: Path, error: type[UserError] = StorageError) -> bool:
    """Whether a folder is at `path`. Arguments and errors are those of `is_there`.

    Example:
        >>> is_folder(Path("/"))
        True
    """
    return _check(Path.is_dir, path, error)


def _check(check: Callable[[Path], bool], path: Path, error: type[UserError]) -> bool:
    try:
        _require_no_null(path)
        return check(path)
    except OSError as refusal:
        raise error(
            f"That path can't be looked at: {refusal.strerror or refusal}. Received: {str(path)!r}. Name another one, "
            "or make the folders before it readable."
        ) from refusal


def _require_no_null(path: str | Path) -> None:
    """Refuse a null character as the system refuses other names; Python raises a `ValueError`, or says "not there"."""
    if "\0" in str(path):
        raise OSError(errno.EINVAL, "a path can't hold a null character")


_KINDS: tuple[tuple[Callable[[int], bool], str], ...] = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
"""(whether a mode is of this kind, its name), of everything that is no regular file."""


def open_file(path: str | Path) -> BinaryIO:
    """Open a regular file to read its bytes, and wait for nothing.

    `open` on a FIFO waits until another process writes to it, a device may never end, and opening one can act on it.

    Args:
        path: the file; links are followed.

    Returns:
        The open file, to be closed by the caller.

    Raises:
        OSError: If there is no such file, it may not be read, or it is no regular file; the caller makes a message.

    Example:
        >>> open_file("/dev/null")
        Traceback (most recent call last):
        OSError: [Errno 22] it is a device, not a file
    """
    _require_no_null(path)
    mode = os.stat(path).st_mode  # noqa: PTH116 - called for each of a million images
    if not stat.S_ISREG(mode):
        kind = next((name for fits, name in _KINDS if fits(mode)), "something else")
        raise OSError(errno.EINVAL, f"it is {kind}, not a file")
    # What has taken the file's place since then is not waited for either.
    return os.fdopen(os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)), "rb")


def require_writable(folder: Path) -> None:
    """Make `folder` and check that a file can be written there, before hours of work go into it.

    Raises:
        StorageError: If the folder can't be made or written.
    """
    blocked = next((path for path in (folder, *folder.parents) if is_there(path) and not is_folder(path)), None)
    if blocked is not None:
        raise StorageError(
            f"Can't write to the folder {folder}: {blocked} is a file. Received: {str(folder)!r}. Name another folder."
        )
    probe = beside(folder / "probe", "tmp")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise StorageError(
            f"Can't write to the folder {folder}: {error.strerror or error}. Received: {str(folder)!r}. "
            "Choose a folder that you may write to, on a disk with room left."
        ) from error


def require_creatable(folder: Path) -> None:
    """Check that `folder` can be made and written, and leave no folder behind, since another check may still fail.

    Raises:
        StorageError: If the folder can't be made or written.
    """
    made = [path for path in (folder, *folder.parents) if not is_there(path)]
    try:
        require_writable(folder)
    finally:
        for path in made:
            # The folder was not made, or it is no longer empty.
            with suppress(OSError):
                path.rmdir()


def require_space(folder: Path, needed: int) -> None:
    """Refuse a disk with too little room, before hours of work go into files that would not fit.

    Args:
        folder: an existing folder on that disk.
        needed: number of bytes that are needed.

    Raises:
        StorageError: If fewer bytes are free.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise StorageError(
            f"The disk of {folder} is too full: {size_text(needed)} are needed. Received: {size_text(free)} free. "
            "Make room, or choose a folder on another disk."
        )


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, atomically; control characters of names in it become escapes, as in a terminal.

    Raises:
        StorageError: If `path` can't be written.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(printable(text), encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` to `path` as strict JSON, as `to_json` gives it, atomically.

    Raises:
        StorageError: If `path` can't be written.
    """
    write_text(path, to_json(value))


def to_json(value: Any) -> str:
    """Indented, strict JSON. RFC 8259 has no NaN and no Infinity, so both become null.

    Where such a number has a reason, the caller adds a field for it, as `TensorError.to_dict` does.

    Example:
        >>> print(to_json({"count": 2, "worst": float("inf")}), end="")
        {
          "count": 2,
          "worst": null
        }
    """
    return json.dumps(_finite(value), indent=2, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    """The value with `None` in place of infinite numbers and NaN."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_text(path: Path) -> str:
    """The text of `path`, which is UTF-8.

    Raises:
        StorageError: If `path` can't be read.
    """
    try:
        with open_file(path) as file, io.TextIOWrapper(file, encoding="utf-8") as text:
            return text.read()
    except (OSError, UnicodeDecodeError) as error:
        raise StorageError(
            f"Can't read {path}: {getattr(error, 'strerror', None) or error}. Received: {str(path)!r}. "
            "Give the path of a text file that you may read."
        ) from error


def read_json(path: Path) -> Any:
    """The value of the JSON file `path`.

    Raises:
        StorageError: If `path` can't be read.
        UserError: If the file isn't JSON, has a name twice in one object, or nests too deep.
    """
    return parse_json(read_text(path), str(path))


def parse_json(text: str, name: str) -> Any:
    """The value of a text of JSON.

    Args:
        text: the JSON.
        name: what a message calls it, such as its path.

    Raises:
        UserError: If the text isn't JSON, has a name twice in one object, or nests too deep.

    Example:
        >>> parse_json('{"epochs": 1}', "settings.json")
        {'epochs': 1}
        >>> parse_json('{"epochs": 1, "epochs": 2}', "settings.json")
        Traceback (most recent call last):
        keras_qat.errors.UserError: settings.json isn't JSON: the name 'epochs' stands twice in one object. ...
    """
    try:
        return json.loads(text, object_pairs_hook=_without_duplicates)
    except (ValueError, RecursionError) as error:  # `ValueError` is also that of an integer with too many digits.
        reason = "it nests too deep" if isinstance(error, RecursionError) else one_line(error)
        raise UserError(f"{name} isn't JSON: {reason}. Received: {text[:_SHOWN]!r}. Correct that place.") from error


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of these names and values. Python would keep the last of two values and drop the other silently."""
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise ValueError(f"the name {twice!r} stands twice in one object")
    return dict(pairs)
