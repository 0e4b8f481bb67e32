"""One progress bar for every long loop, drawn by rich; plain silence where the output is not a terminal.

How long each stage of a run took, and a line in the log for each.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

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
    with _bar() as bar:
        yield from bar.track(items, total=total, description=description)


def track_images(
    batches: Iterable[T],
    size_of: Callable[[T], int],
    description: str,
    total: int | None = None,
    images: int | None = None,
) -> Iterator[T]:
    """Yield `batches`, with a bar that also says how many images go through in a second.

    Args:
        batches: what to loop over.
        size_of: the number of images in a batch.
        description: what is being done.
        total: how many batches there are, where that is known.
        images: how many images there will be; the bar then counts these and not the batches.

    Example:
        >>> list(track_images(["ab", "c"], len, "reading", images=3))
        ['ab', 'c']
    """
    if not CONSOLE.is_terminal:
        yield from batches
        return
    seen = 0
    with _bar(_ImagesPerSecond()) as bar:
        task = bar.add_task(description, total=total if images is None else images, images=0)
        for batch in batches:
            # Counted when the next is asked for: by then this one is done.
            yield batch
            size = size_of(batch)
            seen += size
            bar.update(task, advance=1 if images is None else size, images=seen)


class _ImagesPerSecond(ProgressColumn):
    """The rate since the start, which the first batches, compiled as they come, hold down."""

    def render(self, task: Task) -> Text:
        """The cell of the bar; empty before the first batch."""
        elapsed, images = task.elapsed, task.fields["images"]
        return Text(f"{images / elapsed:.0f} images/s" if images and elapsed else "")


def _bar(*more: ProgressColumn) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), *more)
    return Progress(*columns, console=CONSOLE, transient=True)


_logger = logging.getLogger(__name__)


class Stages:
    """A stopwatch.

    Example:
        >>> stages = Stages()
        >>> with stages.timed("load"):
        ...     pass
        >>> list(stages.seconds)
        ['load']
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        """Wall time of each stage that is done."""

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Keep the time of the block."""
        _logger.info("%s …", stage)
        start = time.perf_counter()
        yield
        self.seconds[stage] = round(time.perf_counter() - start, 2)
        _logger.info("%s: %.1f s", stage, self.seconds[stage])
