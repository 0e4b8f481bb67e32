"""The results table: one list of columns, drawn as Markdown and on the terminal."""

from collections.abc import Callable

from rich.table import Table

from keras_qat.evaluation import Latency
from keras_qat.report.record import Record, Row
from keras_qat.sizes import size_text


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
