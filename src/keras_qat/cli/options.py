"""What several subcommands ask of their options."""

import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import field, fields, make_dataclass
from pathlib import Path
from typing import Any

import docstring_parser
from cyclopts import Parameter
from cyclopts.validators import Number

from keras_qat.errors import BrokenImageError, DataError, StorageError
from keras_qat.files import is_folder, require_creatable
from keras_qat.run import Option

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


def option_group(name: str, options: Iterable[Option], *, optional: bool = False) -> Any:
    """A group of options for a command, declared and explained where their owners declare them.

    Args:
        name: of the group.
        options: that it has.
        optional: leave options open that aren't given, in place of their defaults.

    Returns:
        A dataclass with a field for each option, for `Annotated[…, Parameter(name="*")]`.

    Example:
        >>> from keras_qat.run import OPTIONS
        >>> group = option_group("Group", [OPTIONS["epochs"], OPTIONS["opset"]])
        >>> given(group(epochs=3))
        {'epochs': 3}
    """
    options = tuple(options)
    specs = [
        (option.name, option.kind | None, field(default=None))
        if optional
        else (option.name, option.kind, field(default=option.default))
        for option in options
    ]
    # cyclopts takes the fields of classes apart unless their module is one of the standard library's.
    group = make_dataclass(name, specs, frozen=True, namespace={"__module__": __name__})
    lines = [f"    {option.name}: {_explained(option)}" for option in options]
    group.__doc__ = "\n".join(("Options.", "", "Args:", *lines))
    return group


def given(group: Any) -> dict[str, Any]:
    """The options of a group that have a value, by their names; `None` is a group of which nothing was given."""
    values = {} if group is None else {option.name: getattr(group, option.name) for option in fields(group)}
    return {name: value for name, value in values.items() if value is not None}


def _explained(option: Option) -> str:
    """What the docstring of the option's owner says of it, on one line."""
    explained = {param.arg_name: param.description or "" for param in _docstring(option.owner).params}
    text = " ".join(explained[option.field].split())
    # A list of choices, as in `minmax, ema or mse`, is spelled as it is typed.
    return text if text.split()[0].endswith(",") else text[0].upper() + text[1:]


@functools.cache
def _docstring(owner: type) -> docstring_parser.Docstring:
    return docstring_parser.parse(owner.__doc__ or "", docstring_parser.DocstringStyle.GOOGLE)
