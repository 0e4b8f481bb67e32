"""What is at a path. Where the system won't say, that is an error to read and no traceback.

Up to Python 3.13 `Path.exists` and its like raise on a name that is too long, and on a folder that may not be entered.
"""

from collections.abc import Callable
from pathlib import Path

from keras_qat.errors import StorageError, UserError


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
