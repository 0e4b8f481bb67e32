"""How long each stage of a run took, and a line in the log for each."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

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
