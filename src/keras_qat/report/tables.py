"""Tables on the terminal and in Markdown: the results of a run, a benchmark, an evaluation, one image's classes.

Each table is a list of columns; its footnotes say what a reader must know.
"""

import textwrap
from collections.abc import Callable
from pathlib import Path

from rich.console import Group, JustifyMethod
from rich.table import Table
from rich.text import Text

from keras_qat.evaluation import Benchmark, Classification, Timing
from keras_qat.machine import Environment
from keras_qat.report.cell_text import latency_text, percent_text
from keras_qat.report.record import Record, Row
from keras_qat.report.task_tables import OUTPUT, ResultTable, task_notes, task_tables
from keras_qat.text import markdown_cell, markdown_text, one_line, size_text

COLUMNS: tuple[tuple[str, Callable[[Row], str]], ...] = (
    ("", lambda row: row.name),
    ("Keras top-1", lambda row: percent_text(row.keras_top1)),
    ("Keras latency", lambda row: latency_text(row.keras_latency)),
    ("Deployed top-1", lambda row: percent_text(row.deployed_top1)),
    ("Deployed latency", lambda row: latency_text(row.deployed_latency)),
    ("Agrees with float", lambda row: percent_text(row.agreement)),
    ("Size", lambda row: size_text(row.size_bytes)),
)


def title(record: Record) -> str:
    """The title of the results table: model, data, target and images."""
    of = "samples" if record.tasks else "images"
    return f"{record.model} on {record.data}, target {record.target}, {record.images} validation {of}"


def result_tables(record: Record) -> tuple[ResultTable, ...]:
    """The results as text: one table for a classifier with one output, else those of its tasks."""
    if record.tasks:
        return task_tables(record)
    columns = tuple(name for name, _ in COLUMNS)
    return (ResultTable("", columns, tuple(tuple(cell(row) for _, cell in COLUMNS) for row in record.rows)),)


def _file_and_simulation(record: Record) -> str:
    agreements = ", ".join(f"{percent_text(row.simulation_agreement)} ({row.name})" for row in record.rows)
    noise = ", ".join(f"{row.simulation_sqnr:.1f} dB ({row.name})" for row in record.rows if row.simulation_sqnr)
    return f"File and simulation give the same class on {agreements} of the images; SQNR of their scores: {noise}."


def footnotes(record: Record) -> tuple[str, ...]:
    """What a reader must know of the results table."""
    latency = record.rows[0].deployed_latency
    machine = f"{record.environment.cpu}, {record.environment.cores} cores"
    notes = [
        f"Deployed: {record.engine}.",
        f"Latency: batch {latency.batch}, median and p90 of {latency.runs} interleaved runs after warm-up; {machine}.",
        "Keras latency of PTQ and QAT is that of the simulation, which computes in float.",
        *(task_notes(record) if record.tasks else (_file_and_simulation(record),)),
    ]
    quantized = [row for row in record.rows if row.tensor_errors]
    if quantized:
        worst = max((error for row in quantized for error in row.tensor_errors), key=lambda error: error.worst)
        most = max((error for row in quantized for error in row.tensor_errors), key=lambda error: error.differing)
        notes.append(
            f"Given the same integers before it, every quantized tensor of the files is within {worst.worst:.3g} step "
            f"of the simulation, and at most {100 * most.differing:.2g}% of its numbers differ ({most.tensor})."
        )
    if record.settings.get("precision") == "fp16":
        notes.append(
            "The INT8 files are FP16 elsewhere. ONNX Runtime runs such files right only without its graph optimizer, "
            "so their latency says nothing about the engine that they are for."
        )
    if record.best_epoch == 0:
        notes.append("No epoch of fine-tuning was better than PTQ on the selection images, so QAT is PTQ as it was.")
    elif record.best_epoch is not None:
        notes.append(f"QAT is epoch {record.best_epoch}, chosen on held-out training images.")
    if record.environment.vnni is False:
        notes.append("This CPU has no VNNI: INT8 gains little speed here, and ONNX Runtime needs its exact kernels.")
    return tuple(notes)


def markdown(record: Record) -> str:
    """The results as Markdown, with their title and footnotes."""
    lines = [f"## {markdown_text(one_line(title(record)))}", ""]
    for table in result_tables(record):
        lines += [f"**{table.title}**", ""] if table.title else []
        lines += [
            f"| {' | '.join(table.columns)} |",
            f"| {' | '.join('---' for _ in table.columns)} |",
            *(f"| {' | '.join(map(markdown_cell, row))} |" for row in table.rows),
            "",
        ]
    lines += [f"- {markdown_text(one_line(note))}" for note in footnotes(record)]
    return "\n".join(lines) + "\n"


def terminal_table(record: Record) -> Table | Group:
    """The results for the terminal: one table, or a group of them."""
    notes = Text("\n".join(footnotes(record)))
    if record.tasks:
        return Group(Text(title(record), style="table.title"), *map(_task_table, task_tables(record)), notes)
    table = Table(title=Text(title(record)), caption=notes, caption_justify="left")
    for name, _ in COLUMNS:
        table.add_column(name, justify="left" if not name else "right", overflow="fold")
    for row in record.rows:
        table.add_row(*(Text(cell(row)) for _, cell in COLUMNS))
    return table


def _task_table(shown: ResultTable) -> Table:
    """A table of tasks for the terminal. Only names of outputs are folded, and headings stand a word to a line."""
    table = Table(title=shown.title, title_justify="left")
    for name in shown.columns:
        named = name == OUTPUT
        justify: JustifyMethod = "left" if named or not name else "right"
        table.add_column(name.replace(" ", "\n"), justify=justify, overflow="fold", no_wrap=not named)
    for row in shown.rows:
        table.add_row(*map(Text, row))
    return table


_REASON_WIDTH = 300
"""Characters: some engines explain a failure over a page. The JSON has all of it."""

_BENCHMARK_COLUMNS: tuple[tuple[str, Callable[[Timing], str]], ...] = (
    ("Median ms", lambda timing: f"{timing.median_ms:.2f}"),
    ("p90 ms", lambda timing: f"{timing.p90_ms:.2f}"),
    ("p99 ms", lambda timing: f"{timing.p99_ms:.2f}"),
    ("Images/s", lambda timing: f"{timing.images_per_second:.1f}"),
    ("Ratio", lambda timing: "–" if timing.ratio is None else f"{timing.ratio:.2f}"),
)


def benchmark_table(benchmark: Benchmark, environment: Environment) -> Table:
    """The table of a benchmark for the terminal, a row for each file at each batch size, with its footnotes.

    Args:
        benchmark: the figures.
        environment: the machine that they were measured on.
    """
    notes = Text("\n".join(benchmark_notes(benchmark, environment)))
    table = Table(title="Latency", caption=notes, caption_justify="left")
    table.add_column("Batch", justify="right", overflow="fold")
    table.add_column("File", overflow="fold")
    for name, _ in _BENCHMARK_COLUMNS:
        table.add_column(name, justify="right", overflow="fold")
    cells = {
        (timing.batch, timing.file): tuple(cell(timing) for _, cell in _BENCHMARK_COLUMNS)
        for timing in benchmark.timings
    }
    cells |= {(skip.batch, skip.file): ("skipped",) for skip in benchmark.skipped}
    for batch in dict.fromkeys(batch for batch, _ in cells):
        for file in benchmark.files:
            table.add_row(str(batch), Text(file.name), *cells[batch, file.name])
        table.add_section()
    return table


def benchmark_notes(benchmark: Benchmark, environment: Environment) -> tuple[str, ...]:
    """What a reader must know of a benchmark, and why what is missing was skipped."""
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


def classification_table(classification: Classification) -> Table:
    """The best classes of one image for the terminal."""
    # A title is no wider than its table, so it holds names and no paths.
    where = Text(f"{Path(classification.file).name} in {classification.engine} ({classification.device})")
    table = Table(title=Text(Path(classification.image).name), caption=where, min_width=len(where))
    for name in ("Class", "Number", "Score"):
        table.add_column(name, justify="left" if name == "Class" else "right", overflow="fold")
    for ranked in classification.classes:
        table.add_row(Text(ranked.name), str(ranked.index), f"{ranked.score:.4g}")
    return table
