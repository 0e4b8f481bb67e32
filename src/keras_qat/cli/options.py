"""What several subcommands ask of their options."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cyclopts import Parameter
from cyclopts.validators import Number

from keras_qat.errors import BrokenImageError, DataError, StorageError
from keras_qat.files import is_folder, require_creatable

AtLeastOne = Parameter(validator=Number(gte=1))
"""A count: `Annotated[int, AtLeastOne]`."""

Flag = Parameter(negative=())
"""A switch that is off if not given: `Annotated[bool, Flag]`."""

SKIP_NOW = "Or leave such files out with --skip-bad."
"""What else can be done about a broken image, if the command has that option."""

SKIP_ANEW = "Or make the run anew with --skip-bad, which leaves such files out."
"""Likewise, if only the command that made the run has it."""

Json = Parameter(name="--json", negative=())
"""Print JSON: `as_json: Annotated[bool, Json]`."""


def require_all(*given: tuple[Callable[[Any], object], Any]) -> None:
    """Hold what was given to its check, in turn, before anything is imported that takes seconds.

    Args:
        given: pairs of a check, which raises a `UserError`, and a value; `None` is passed over.

    Example:
        >>> from keras_qat.data import require_source
        >>> from keras_qat.files import require_model_file
        >>> require_all((require_source, "digits"), (require_model_file, None))
    """
    for check, value in given:
        if value is not None:
            check(value)


@contextmanager
def offering_skip_bad(advice: str, *, given: bool) -> Iterator[None]:
    """Say of `--skip-bad` where a broken image stops the command: only a command knows of the option.

    Args:
        advice: `SKIP_NOW` or `SKIP_ANEW`.
        given: the option is set already, and nothing is said of it.

    Raises:
        DataError: the error, with the advice behind it.

    Example:
        >>> with offering_skip_bad(SKIP_NOW, given=False):
        ...     raise BrokenImageError("Can't read the image a.png. Replace it.")
        Traceback (most recent call last):
        keras_qat.errors.DataError: Can't read the image a.png. Replace it. Or leave such files out with --skip-bad.
    """
    try:
        yield
    except BrokenImageError as error:
        if given:
            raise
        raise DataError(f"{error} {advice}") from error


def require_output_file(path: Path, *suffixes: str) -> None:
    """Refuse what couldn't be written once all is computed, or would replace something else.

    Args:
        path: the file that will be written.
        suffixes: that it may have; any if none is given.

    Raises:
        StorageError: it is a folder, has another suffix, or its folder can't be written.
    """
    if is_folder(path):
        raise StorageError(f"The output is a file. Received: the folder {str(path)!r}. Name a file.")
    if suffixes and path.suffix not in suffixes:
        raise StorageError(f"The output is a {' or '.join(suffixes)} file. Received: {str(path)!r}. Name such a file.")
    require_creatable(path.parent)


def require_json_output(path: Path) -> None:
    """The same, of a .json file.

    Raises:
        StorageError: likewise.
    """
    require_output_file(path, ".json")
