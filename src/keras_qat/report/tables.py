"""The results table: one list of columns, drawn as Markdown and on the terminal.

A benchmark on the terminal: a row for each file at each batch size, and why what is missing was skipped.

An evaluation on the terminal: a row for each file, and in words whether two differ. So one image's classes.
"""

import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from keras_qat.evaluation import Benchmark, Classification, Evaluation, Latency, Proportion, ScoredFile, Timing
from keras_qat.machine import Environment
from keras_qat.report.record import Record, Row
from keras_qat.text import size_text


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.2f}%"


def _milliseconds(latency: Latency) -> str:
    return f"{latency.median_ms:.2f} ms (p90 {latency.p90_ms:.2f})"


COLUMNS: tuple[tuple[str, Callable[[Row], str]], ...] = (
    ("", lambda row: row.name),
    ("Keras top-1", lambda row: _percent(row.keras_top1)),
    ("Keras latency", lambda row: _milliseconds(row.keras_latency)),
    ("Deployed top-1", lambda row: _percent(row.deployed_top1)),
    ("Deployed latency", lambda row: _milliseconds(row.deployed_latency)),
    ("Agreement with float", lambda row: _percent(row.agreement)),
    ("Size", lambda row: size_text(row.size_bytes)),
)


def title(record: Record) -> str:
    """One line that says what the table is about."""
    return f"{record.model} on {record.data}, target {record.target}, {record.images} validation images"


def footnotes(record: Record) -> tuple[str, ...]:
    """What a reader must know to read the table right."""
    latency = record.rows[0].deployed_latency
    agreements = ", ".join(f"{_percent(row.simulation_agreement)} ({row.name})" for row in record.rows)
    noise = ", ".join(f"{row.simulation_sqnr:.1f} dB ({row.name})" for row in record.rows if row.simulation_sqnr)
    machine = f"{record.environment.cpu}, {record.environment.cores} cores"
    notes = [
        f"Deployed: {record.engine}.",
        f"Latency: batch 1, median and p90 of {latency.runs} interleaved runs after warm-up; {machine}.",
        "Keras latency of PTQ and QAT is that of the simulation, which computes in float.",
        f"File and simulation give the same class on {agreements} of the images; SQNR of their scores: {noise}.",
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
    """The table as Markdown, with its title and footnotes."""
    lines = [
        f"## {title(record)}",
        "",
        f"| {' | '.join(name for name, _ in COLUMNS)} |",
        f"| {' | '.join('---' for _ in COLUMNS)} |",
        *(f"| {' | '.join(cell(row) for _, cell in COLUMNS)} |" for row in record.rows),
        "",
        *(f"- {note}" for note in footnotes(record)),
    ]
    return "\n".join(lines) + "\n"


def terminal_table(record: Record) -> Table:
    """The table for the terminal."""
    table = Table(title=title(record), caption="\n".join(footnotes(record)), caption_justify="left")
    for name, _ in COLUMNS:
        table.add_column(name, justify="left" if not name else "right")
    for row in record.rows:
        table.add_row(*(cell(row) for _, cell in COLUMNS))
    return table


_REASON_WIDTH = 300
"""Characters; some engines explain themselves over a page. The JSON has all of it."""

_BENCHMARK_COLUMNS: tuple[tuple[str, Callable[[Timing], str]], ...] = (
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
    for name, _ in _BENCHMARK_COLUMNS:
        table.add_column(name, justify="right")
    cells = {(it.batch, it.file): tuple(cell(it) for _, cell in _BENCHMARK_COLUMNS) for it in benchmark.timings}
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


_NO_LABELS = "–"

_EVALUATION_COLUMNS: tuple[tuple[str, Callable[[ScoredFile, Evaluation], str]], ...] = (
    ("Engine", lambda file, _: f"{file.engine} ({file.device})"),
    ("Images", lambda _, evaluation: str(evaluation.images)),
    ("Top-1", lambda file, _: _NO_LABELS if file.top1 is None else _file_percent(file.top1.value)),
    ("95% interval", lambda file, _: _NO_LABELS if file.top1 is None else _interval(file.top1)),
    ("Top-k", lambda file, _: _NO_LABELS if file.top_k is None else _file_percent(file.top_k.value)),
    ("Images/s", lambda file, _: f"{file.images_per_second:.1f}"),
)


def evaluation_table(evaluation: Evaluation) -> Table:
    """The table for the terminal, with its footnotes."""
    notes = Text("\n".join(evaluation_notes(evaluation)))
    rows = [[cell(file, evaluation) for _, cell in _EVALUATION_COLUMNS] for file in evaluation.files]
    labelled = all(file.top1 is not None for file in evaluation.files)
    shown = [i for i in range(len(_EVALUATION_COLUMNS)) if any(row[i] != _NO_LABELS for row in rows)]
    title = f"{'Accuracy' if labelled else 'Agreement'} on {evaluation.data}"
    table = Table(title=title, caption=notes, caption_justify="left")
    table.add_column("File", overflow="fold")
    for name in (_EVALUATION_COLUMNS[i][0] for i in shown):
        table.add_column(name.replace("-k", f"-{evaluation.k}"), justify="left" if name == "Engine" else "right")
    for file, row in zip(evaluation.files, rows, strict=True):
        table.add_row(Text(file.name), *(Text(row[i]) for i in shown))
    return table


def classification_table(found: Classification) -> Table:
    """The best classes of one image for the terminal."""
    # A title is no wider than its table, so names and no paths.
    where = Text(f"{Path(found.file).name} in {found.engine} ({found.device})")
    table = Table(title=Text(Path(found.image).name), caption=where, min_width=len(where))
    for name in ("Class", "Number", "Score"):
        table.add_column(name, justify="left" if name == "Class" else "right")
    for ranked in found.classes:
        table.add_row(Text(ranked.name), str(ranked.index), f"{ranked.score:.4g}")
    return table


def evaluation_notes(evaluation: Evaluation) -> tuple[str, ...]:
    """What a reader must know to read the table right; of two files, how they compare."""
    batches = " and ".join(dict.fromkeys(str(file.batch_size) for file in evaluation.files))
    explained = f"95% interval: Wilson's. Images/s: in the engine alone, median of the batches of {batches}."
    left_out = (f"{evaluation.skipped} more images were broken and were left out.",)
    return (explained, *(left_out if evaluation.skipped else ()), *_compared(evaluation))


def _compared(evaluation: Evaluation) -> Sequence[str]:
    found, same = evaluation.comparison, evaluation.agreement
    if same is None:
        return ()
    alike = f"Same class on {_percent(same.value)} of the images ({_interval(same)})."
    if found is None:
        return (f"{alike} They have no labels, so nobody knows which is right.",)
    first, second = (file.name for file in evaluation.files)
    better, worse = (first, second) if found.difference > 0 else (second, first)
    verdict = f"{better} is better than {worse}" if found.shown else "no difference shown"
    agreement = (
        f"{alike} Only {first} is right on {found.only_first}, only {second} on {found.only_second}; "
        f"both on {found.both_right}, neither on {found.both_wrong}."
    )
    difference = (
        f"Top-1 of {first} less that of {second}: {100 * found.difference:+.2f} points "
        f"({100 * found.low:+.2f} to {100 * found.high:+.2f}, Agresti and Min). "
        f"Exact McNemar test: p = {found.p_value:.3g}: {verdict}."
    )
    return agreement, difference


def _file_percent(share: float) -> str:
    return f"{100 * share:.2f}%"


def _interval(share: Proportion) -> str:
    return f"{_percent(share.low)} to {_percent(share.high)}"
