"""What a command prints at its end: a table or text, or JSON; nothing else goes to standard output."""

import json
import math
import sys
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table


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


def to_json(value: Any) -> str:
    """JSON that every reader takes, with null where a number is infinite or none."""
    return json.dumps(_finite(value), indent=2, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    """The value with null where a number is infinite or none, since JSON has no word for these."""
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
