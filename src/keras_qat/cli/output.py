"""The output of commands: results on standard output, as a table, text or JSON, and the log in a file.

Nothing but results goes to standard output.
"""

import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from keras_qat import report, run
from keras_qat.errors import StorageError
from keras_qat.files import to_json
from keras_qat.progress import CONSOLE

_PACKAGE = "keras_qat"


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


def show(describe: Callable[[], Table | str], record: Any, *, as_json: bool) -> None:
    """Print a result.

    Args:
        describe: gives the result as a table, or as text, which is printed unchanged.
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
        sys.stdout.write(result)
    else:
        Console().print(result)


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
            Console().print(report.terminal_table(record))
        out = CONSOLE if as_json else Console()
        out.print(f"Models, results and report.html are in {folder}", soft_wrap=True, highlight=False)
    if as_json:
        values = [record.to_dict() for record in records]
        sys.stdout.write(to_json(values[0] if len(values) == 1 else values))
    for record in records:
        run.check_gates(record)
