"""A log file beside the terminal: what a long run on a server leaves behind."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from keras_qat.errors import StorageError

_PACKAGE = "keras_qat"


@contextmanager
def logging_to(path: Path | None) -> Iterator[Callable[[str], None]]:
    """Append the package's log to a file within the block, each line with its time, and what ends the block early.

    Args:
        path: the file; without one, nothing is written.

    Yields:
        A function that writes a line to the file only.

    Raises:
        StorageError: the file can't be written.
    """
    if path is None:
        yield lambda _: None
        return
    package = logging.getLogger(_PACKAGE)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(path, encoding="utf-8")
    except OSError as error:
        raise StorageError(
            f"Can't write the log file: {error.strerror or error}. Received: {str(path)!r}. "
            "Name a file in a folder that you may write to."
        ) from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))

    def note(message: str, level: int = logging.INFO) -> None:
        handler.handle(package.makeRecord(_PACKAGE, level, "", 0, message, (), None))

    package.addHandler(handler)
    try:
        yield note
    except BaseException as error:
        note(f"Stopped: {type(error).__name__}: {error}", logging.ERROR)
        raise
    finally:
        package.removeHandler(handler)
        handler.close()
