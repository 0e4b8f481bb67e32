"""A benchmark on the terminal: a row for each file at each batch size, and why what is missing was skipped."""

import textwrap
from collections.abc import Callable

from rich.table import Table
from rich.text import Text

from keras_qat.evaluation import Benchmark, Timing
from keras_qat.report.environment import Environment

_REASON_WIDTH = 300
"""Characters; some engines explain themselves over a page. The JSON has all of it."""

_COLUMNS: tuple[tuple[str, Callable[[Timing], str]], ...] = (
    ("Median ms", lambda timing: f"{timing.median_ms:.2f}"),
    ("p90 ms", lambda timing: f"{timing.p90_ms:.2f}"),
    ("p99 ms", lambda timing: f"{timing.p99_ms:.2f}"),
    ("Images/s", lambda timing: f"{timing.images_per_second:.1f}"),
    ("Ratio", lambda timing: "–" if timing.ratio is None else f"{timing.ratio:.2f}"),
)


def benchmark_table(benchmark: Benchmark, environment: Environment) -> Table:
    """The table for the terminal, with its footnotes.

    Args:
        benchmark: the figures.
        environment: the machine that they were measured on.
    """
    notes = Text("\n".join(benchmark_notes(benchmark, environment)))
    table = Table(title="Latency", caption=notes, caption_justify="left")
    table.add_column("Batch", justify="right")
    table.add_column("File", overflow="fold")
    for name, _ in _COLUMNS:
        table.add_column(name, justify="right")
    cells = {(it.batch, it.file): tuple(cell(it) for _, cell in _COLUMNS) for it in benchmark.timings}
    cells |= {(it.batch, it.file): ("skipped",) for it in benchmark.skipped}
    for batch in dict.fromkeys(batch for batch, _ in cells):
        for file in benchmark.files:
            table.add_row(str(batch), Text(file.name), *cells[batch, file.name])
        table.add_section()
    return table


def benchmark_notes(benchmark: Benchmark, environment: Environment) -> tuple[str, ...]:
    """What a reader must know to read the table right."""
    where: dict[str, list[str]] = {}
    for file in benchmark.files:
        where.setdefault(f"{file.engine} ({file.device})", []).append(file.name)
    reasons: dict[tuple[str, str], list[str]] = {}
    for skip in benchmark.skipped:
        reasons.setdefault((skip.file, skip.reason), []).append(str(skip.batch))
    machine = f"{environment.cpu}, {environment.cores} cores"
    return (
        *(f"{engine}: {', '.join(names)}." for engine, names in where.items()),
        f"{benchmark.runs} interleaved runs each, after {benchmark.warm_up} to warm up, on random numbers; {machine}.",
        f"Ratio: time over that of {benchmark.files[0].name}, median of the rounds' ratios; below 1 is faster.",
        *(
            f"{file} at batch {', '.join(batches)} skipped: {textwrap.shorten(reason, _REASON_WIDTH)}."
            for (file, reason), batches in reasons.items()
        ),
    )
