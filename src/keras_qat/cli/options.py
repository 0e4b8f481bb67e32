"""Options that several commands share: their types, their checks, and groups of options composed from their owners."""

import functools
from collections.abc import Callable, Container, Iterable, Iterator
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
from keras_qat.text import one_line

AtLeastOne = Parameter(validator=Number(gte=1))
"""A count: `Annotated[int, AtLeastOne]`."""

Flag = Parameter(negative=())
"""A switch that is off unless it is given: `Annotated[bool, Flag]`."""

Json = Parameter(name="--json", negative=())
"""The switch that prints JSON: `as_json: Annotated[bool, Json]`."""

SKIP_NOW = "Or leave such files out with --skip-bad."
"""Advice about a broken image where the command has the option `--skip-bad`."""

SKIP_ANEW = "Or make the run anew with --skip-bad, which leaves such files out."
"""Advice about a broken image where only the command that made the run has `--skip-bad`."""


def require_all(*given: tuple[Callable[[Any], object], Any]) -> None:
    """Check each value in turn, before modules are imported that take seconds to load.

    Args:
        given: pairs of a check, which raises a `UserError`, and a value. `None` is not checked.

    Example:
        >>> from keras_qat.data import require_source
        >>> from keras_qat.files import require_model_file
        >>> require_all((require_source, "digits"), (require_model_file, None))
    """
    for check, value in given:
        if value is not None:
            check(value)


def require_output_file(path: Path, *suffixes: str) -> None:
    """Check before the computation that its result can be written, and replaces nothing else.

    Args:
        path: the file that will be written.
        suffixes: suffixes that the file may have. If none is given, it may have any.

    Raises:
        StorageError: If the path is a folder or has another suffix, or its folder can't be written.
    """
    if is_folder(path):
        raise StorageError(f"The output is a file. Received: the folder {str(path)!r}. Name a file.")
    if suffixes and path.suffix not in suffixes:
        raise StorageError(f"The output is a {' or '.join(suffixes)} file. Received: {str(path)!r}. Name such a file.")
    require_creatable(path.parent)


def require_json_output(path: Path) -> None:
    """Check a .json file as `require_output_file` does.

    Raises:
        StorageError: If the path is a folder or has another suffix, or its folder can't be written.
    """
    require_output_file(path, ".json")


@contextmanager
def offering_skip_bad(advice: str, *, given: bool) -> Iterator[None]:
    """Add advice about `--skip-bad` to the error of a broken image. Only a command knows that option.

    Args:
        advice: `SKIP_NOW` or `SKIP_ANEW`.
        given: whether the option is set already. The advice is left out then.

    Raises:
        DataError: If an image is broken. It is the same error, followed by the advice.

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


def option_group(
    name: str, options: Iterable[Option], *, optional: Container[str] = (), without: Container[str] = ()
) -> Any:
    """A group of options for a command, with the types, defaults and help texts that the options' owners declare.

    Args:
        name: name of the group.
        options: options of the group.
        optional: names of options whose value is `None` if they are not given, in place of their default.
        without: names of options to leave out.

    Returns:
        A dataclass with a field for each option, for `Annotated[…, Parameter(name="*")]`.

    Example:
        >>> from keras_qat.run import OPTIONS
        >>> group = option_group("Group", [OPTIONS["epochs"], OPTIONS["opset"], OPTIONS["seed"]], without={"seed"})
        >>> given(group(epochs=3))
        {'epochs': 3}
    """
    chosen = [option for option in options if option.name not in without]
    specs = [
        (option.name, option.kind | None, field(default=None))
        if option.name in optional
        else (option.name, option.kind, field(default=option.default))
        for option in chosen
    ]
    # cyclopts takes the fields of classes apart unless their module is one of the standard library's.
    group = make_dataclass(name, specs, frozen=True, namespace={"__module__": __name__})
    lines = [f"    {option.name}: {_help(option)}" for option in chosen]
    group.__doc__ = "\n".join(("Options.", "", "Args:", *lines))
    return group


def given(group: Any) -> dict[str, Any]:
    """The options of a group that have a value, by their names.

    Args:
        group: the group, or `None` if none of its options was given.
    """
    values = {} if group is None else {option.name: getattr(group, option.name) for option in fields(group)}
    return {name: value for name, value in values.items() if value is not None}


def _help(option: Option) -> str:
    """The description of an option in the docstring of its owner, on one line."""
    descriptions = {param.arg_name: param.description or "" for param in _docstring(option.owner).params}
    text = one_line(descriptions[option.field])
    # A list of choices, as in `minmax, ema or mse`, is spelled as it is typed.
    return text if text.split()[0].endswith(",") else text[0].upper() + text[1:]


@functools.cache
def _docstring(owner: type) -> docstring_parser.Docstring:
    return docstring_parser.parse(owner.__doc__ or "", docstring_parser.DocstringStyle.GOOGLE)
