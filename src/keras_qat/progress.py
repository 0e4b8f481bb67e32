"""Progress of long work on standard error: a bar for each loop, and the time that each stage of a run takes.

Where standard error is not a terminal, no bar is drawn.
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
"""Progress and notes go to standard error, so that standard output holds results alone."""

_logger = logging.getLogger(__name__)


def track(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Yield `items`, with a bar that shows how far the loop is and the time that remains.

    Args:
        items: what to loop over.
        description: the work, as the bar's label.
        total: the number of items, for an iterable without a length.

    Yields:
        Each item.

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
    """Yield `batches`, with a bar that also shows the number of images per second.

    Args:
        batches: what to loop over.
        size_of: gives the number of images in a batch.
        description: the work, as the bar's label.
        total: the number of batches, where it is known.
        images: the number of images in all batches; if given, the bar counts images instead of batches.

    Yields:
        Each batch.

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
            yield batch
            # The caller asks for the next batch once it is done with this one.
            size = size_of(batch)
            seen += size
            bar.update(task, advance=1 if images is None else size, images=seen)


def _bar(*more: ProgressColumn) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), *more)
    return Progress(*columns, console=CONSOLE, transient=True)


class _ImagesPerSecond(ProgressColumn):
    """The rate since the start; the first batches, in which the model is compiled, lower it."""

    def render(self, task: Task) -> Text:
        """The text of the column, empty before the first batch."""
        elapsed, images = task.elapsed, task.fields["images"]
        return Text(f"{images / elapsed:.0f} images/s" if images and elapsed else "")


class Stages:
    """Measures how long each stage of a run takes, and logs it.

    Example:
        >>> stages = Stages()
        >>> with stages.timed("load"):
        ...     pass
        >>> list(stages.seconds)
        ['load']
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        """Wall time of each finished stage in seconds, by its name."""

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Measure the time of the `with` block; a block that raises is not recorded.

        Args:
            stage: name of the stage.
        """
        _logger.info("%s …", stage)
        start = time.perf_counter()
        yield
        self.seconds[stage] = round(time.perf_counter() - start, 2)
        _logger.info("%s: %.1f s", stage, self.seconds[stage])
