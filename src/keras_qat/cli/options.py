"""What several subcommands ask of their options."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cyclopts import Parameter
from cyclopts.validators import Number

from keras_qat.errors import StorageError
from keras_qat.storage import require_creatable

AtLeastOne = Parameter(validator=Number(gte=1))
"""A count: `Annotated[int, AtLeastOne]`."""

Flag = Parameter(negative=())
"""A switch that is off if not given: `Annotated[bool, Flag]`."""

Json = Parameter(name="--json", negative=())
"""Print JSON: `as_json: Annotated[bool, Json]`."""


def require_all(*given: tuple[Callable[[Any], object], Any]) -> None:
    """Hold what was given to its check, in turn, before anything is imported that takes seconds.

    Args:
        given: pairs of a check, which raises a `UserError`, and a value; `None` is passed over.

    Example:
        >>> from keras_qat.paths import require_model_file, require_source
        >>> require_all((require_source, "digits"), (require_model_file, None))
    """
    for check, value in given:
        if value is not None:
            check(value)


def require_output_file(path: Path, *suffixes: str) -> None:
    """Refuse what couldn't be written once all is computed, or would replace something else.

    Args:
        path: the file that will be written.
        suffixes: that it may have; any if none is given.

    Raises:
        StorageError: it is a folder, has another suffix, or its folder can't be written.
    """
    if path.is_dir():
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
