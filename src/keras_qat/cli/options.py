"""What several subcommands ask of their options."""

from pathlib import Path

from cyclopts import Parameter
from cyclopts.validators import Number

from keras_qat.errors import StorageError

AtLeastOne = Parameter(validator=Number(gte=1))
"""A count: `Annotated[int, AtLeastOne]`."""

Flag = Parameter(negative=())
"""A switch that is off if not given: `Annotated[bool, Flag]`."""

Json = Parameter(name="--json", negative=())
"""Print JSON: `as_json: Annotated[bool, Json]`."""


def require_output_file(path: Path, *suffixes: str) -> None:
    """Refuse what couldn't be written once all is computed, or would replace something else.

    Args:
        path: the file that will be written.
        suffixes: that it may have; any if none is given.

    Raises:
        StorageError: it is a folder, has another suffix, or its folder can't be written.
    """
    from keras_qat.storage import require_writable

    if path.is_dir():
        raise StorageError(f"Figures go to a file. Received: the folder {str(path)!r}. Name a file.")
    if suffixes and path.suffix not in suffixes:
        raise StorageError(f"Figures go to a {' or '.join(suffixes)} file. Received: {str(path)!r}. Name such a file.")
    require_writable(path.parent)
