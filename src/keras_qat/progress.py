"""One progress bar for every long loop, drawn by rich; plain silence where the output is not a terminal."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

T = TypeVar("T")

CONSOLE = Console(stderr=True)
"""Progress and notes go to standard error; results alone go to standard output."""


def track(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Yield `items`, with a bar that says how far the loop is and how long it will take.

    Args:
        items: what to loop over.
        description: what is being done.
        total: how many items there are, where `items` can't say.

    Example:
        >>> list(track([1, 2], "counting"))
        [1, 2]
    """
    if not CONSOLE.is_terminal:
        yield from items
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=CONSOLE, transient=True) as bar:
        yield from bar.track(items, total=total, description=description)
