"""What a benchmark says: frozen figures of each file at each batch size."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class TimedFile:
    """A file that was opened.

    Args:
        name: as the report calls it.
        engine: which runs it, with its version.
        device: where, and on how many threads.
        inputs: what it reads, such as `image: float32 (?, 224, 224, 3)`.
    """

    name: str
    engine: str
    device: str
    inputs: tuple[str, ...]


@dataclass(frozen=True)
class Timing:
    """One file at one batch size.

    Args:
        file: name of the file.
        batch: images in a run.
        median_ms: median of the runs, milliseconds.
        p90_ms: 90th percentile, milliseconds.
        p99_ms: 99th percentile, milliseconds.
        images_per_second: batch / median.
        ratio: median over the rounds of this file's time over the first file's; below 1 is faster. `None` where the
            first file was skipped.
    """

    file: str
    batch: int
    median_ms: float
    p90_ms: float
    p99_ms: float
    images_per_second: float
    ratio: float | None


@dataclass(frozen=True)
class Skip:
    """A batch size that a file wasn't timed at.

    Args:
        file: name of the file.
        batch: images in a run.
        reason: why.
    """

    file: str
    batch: int
    reason: str


@dataclass(frozen=True)
class Benchmark:
    """All figures.

    Args:
        files: what was opened, the first is what the others are compared with.
        timings: by batch size, then in the order of the files.
        skipped: likewise.
        runs: counted runs of each file at each batch size.
        warm_up: runs of each before, not counted.
    """

    files: tuple[TimedFile, ...]
    timings: tuple[Timing, ...]
    skipped: tuple[Skip, ...]
    runs: int
    warm_up: int

    def to_dict(self) -> dict[str, Any]:
        """The figures as JSON can hold them."""
        return asdict(self)
