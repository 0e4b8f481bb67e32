"""What a command prints at its end: a table or text, or JSON; nothing else goes to standard output."""

import sys
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.table import Table

from keras_qat.storage import to_json


def show(human: Callable[[], Table | str], record: Any, *, as_json: bool) -> None:
    """Print a result.

    Args:
        human: makes what a person reads: text, which is printed as it is, or a table.
        record: the same as JSON can hold it.
        as_json: print that instead.

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
    shown = human()
    if isinstance(shown, str):
        sys.stdout.write(shown)
    else:
        Console().print(shown)
