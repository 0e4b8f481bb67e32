"""What several commands share: groups of options composed from their owners, checks of options, and the output.

Nothing but results goes to standard output: a table, text or JSON. The log goes to standard error, or to a file too.
"""

import functools
import logging
import sys
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields, make_dataclass
from pathlib import Path
from typing import Any

import docstring_parser
from cyclopts import Parameter
from cyclopts.validators import Number
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from keras_qat import report, run, targets
from keras_qat.errors import BrokenImageError, DataError, StorageError
from keras_qat.files import require_trusted, to_json
from keras_qat.progress import CONSOLE
from keras_qat.run import Option
from keras_qat.text import one_line, printable

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


def trusting(trust: bool) -> Callable[[Path], None]:
    """A check that refuses a model file with code in it, unless it is trusted, before its engine is loaded.

    Args:
        trust: whether the user trusts the files.

    Example:
        >>> trusting(False)(Path("int8.onnx"))
    """

    def check(path: Path) -> None:
        if any(engine.runs_code and engine.accepts(path) for engine in targets.ENGINES.values()):
            require_trusted(path, trust=trust)

    return check


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


_PACKAGE = "keras_qat"


class LogFormatter(logging.Formatter):
    """A formatter whose lines a terminal can be given, whatever names of files are in the messages."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record, with control characters as escapes."""
        return printable(super().format(record))


class _LogFile(logging.FileHandler):
    """A log file whose disk may get full: that is said once, and the command goes on without it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, encoding="utf-8", errors="backslashreplace")
        self._path, self._broken = path, False

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, unless an earlier one could not be written."""
        if not self._broken:
            super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - its name in `logging`
        """Say on the terminal why the line can't be written."""
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
            return
        self._broken = True
        logging.getLogger(_PACKAGE).warning(
            "The log file can't be written any more: %s. Received: %r. The command goes on without it.",
            error.strerror or error,
            str(self._path),
        )


@contextmanager
def logging_to(path: Path | None) -> Iterator[Callable[[str], None]]:
    """Append the package's log to a file within the block, each line with its time; also an error that ends the block.

    Args:
        path: the file. Nothing is written if it is `None`.

    Yields:
        A function that writes a line to the file only.

    Raises:
        StorageError: If the file can't be written.
    """
    if path is None:
        yield lambda _: None
        return
    package = logging.getLogger(_PACKAGE)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = _LogFile(path)
    except OSError as error:
        raise StorageError(
            f"Can't write the log file: {error.strerror or error}. Received: {str(path)!r}. "
            "Name a file in a folder that you may write to."
        ) from error
    handler.setFormatter(LogFormatter("%(asctime)s %(levelname)s %(message)s"))

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
        with suppress(OSError):  # The disk is full, which was said already.
            handler.close()


def show(describe: Callable[[], RenderableType | str], record: Any, *, as_json: bool) -> None:
    """Print a result.

    Args:
        describe: gives the result as a table, or as text, which is printed unchanged but for control characters.
        record: the result as JSON can hold it.
        as_json: whether to print the record instead.

    Example:
        >>> show(lambda: "two", {"count": 2, "worst": float("inf")}, as_json=True)
        {
          "count": 2,
          "worst": null
        }
    """
    if as_json:
        sys.stdout.write(to_json(record))
        return
    result = describe()
    if isinstance(result, str):
        sys.stdout.write(printable(result))
    else:
        Console(markup=False).print(PrintableTable(result))


@dataclass(frozen=True)
class PrintableTable:
    """A table or a group of tables to print with Rich, the control characters of names in its cells as escapes."""

    table: RenderableType

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        """The parts of the table that Rich prints."""
        for text, style, control in console.render(self.table, options):
            yield Segment(printable(text), style, control)


def show_results(runs: "Iterable[tuple[report.Record, Path]]", *, as_json: bool) -> None:
    """Print each run's table as soon as the run is done; at the end, check the deployed files of all.

    Args:
        runs: record and folder of each run.
        as_json: whether to print the records as JSON at the end instead: one record, or a list of several.

    Raises:
        GateMissedError: If a deployed file does not compute what was simulated.
    """
    records = []
    for record, folder in runs:
        records.append(record)
        if not as_json:
            Console(markup=False).print(PrintableTable(report.terminal_table(record)))
        out = CONSOLE if as_json else Console()
        note = f"Models, results and report.html are in {printable(str(folder))}"
        out.print(note, markup=False, soft_wrap=True, highlight=False)
    if as_json:
        values = [record.to_dict() for record in records]
        sys.stdout.write(to_json(values[0] if len(values) == 1 else values))
    for record in records:
        run.check_gates(record)
