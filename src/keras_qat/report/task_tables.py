"""The tables of a model that isn't a classifier with one output: one for each kind of task, and one of the costs.

A table has a row for each variant and output. A column in which nothing is known, such as the mean IoU of images
without masks, is left out.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from keras_qat.evaluation import OutputScores
from keras_qat.report.cell_text import NOTHING, decibel_text, latency_text, number_text, percent_text
from keras_qat.report.record import Record, Row
from keras_qat.text import size_text
from keras_qat.types import TaskKind

OUTPUT = "Output"
"""The heading of the names of outputs."""


@dataclass(frozen=True)
class ResultTable:
    """A table as text.

    Args:
        title: what it is about; empty for the only table of a run.
        columns: the headings; the first one is that of the variants.
        rows: a cell for each column.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Column:
    """A column of a kind of task.

    Args:
        heading: its heading.
        scores: the scores of all outputs that it takes a figure of.
        figure: the name of that figure.
        text: the figure as text.
    """

    heading: str
    scores: Callable[[Row], Sequence[OutputScores]]
    figure: str
    text: Callable[[float | None], str]

    def cell(self, row: Row, output: int) -> str:
        """The cell of a row for an output."""
        scores = self.scores(row)
        return self.text(scores[output].value(self.figure)) if output < len(scores) else NOTHING


def _of_file(row: Row) -> Sequence[OutputScores]:
    return row.outputs


def _of_keras(row: Row) -> Sequence[OutputScores]:
    return row.keras_outputs


TASK_COLUMNS: Mapping[TaskKind, tuple[Column, ...]] = {
    "classification": (
        Column("Keras top-1", _of_keras, "top1", percent_text),
        Column("Deployed top-1", _of_file, "top1", percent_text),
        Column("Agrees with float", _of_file, "agreement", percent_text),
    ),
    "segmentation": (
        Column("Keras mean IoU", _of_keras, "mean_iou", percent_text),
        Column("Deployed mean IoU", _of_file, "mean_iou", percent_text),
        Column("Pixel accuracy", _of_file, "pixel_accuracy", percent_text),
        Column("Agrees with float", _of_file, "agreement", percent_text),
        Column("IoU with float", _of_file, "model_iou", percent_text),
    ),
    "regression": (
        Column("SQNR (dB)", _of_file, "sqnr", lambda number: NOTHING if number is None else f"{number:.1f}"),
        Column("Mean error", _of_file, "mean_error", number_text),
        Column("Largest error", _of_file, "largest_error", number_text),
        Column("Keras MAE", _of_keras, "mae", number_text),
        Column("MAE", _of_file, "mae", number_text),
        Column("RMSE", _of_file, "rmse", number_text),
    ),
}
"""The columns of each kind of task, which fit a terminal of 80 columns beside the variant and the output."""

_COSTS: tuple[tuple[str, Callable[[Row], str]], ...] = (
    ("Keras latency", lambda row: latency_text(row.keras_latency)),
    ("Deployed latency", lambda row: latency_text(row.deployed_latency)),
    ("Size", lambda row: size_text(row.size_bytes)),
)

_TITLES: Mapping[TaskKind, str] = {
    "classification": "Classification",
    "segmentation": "Segmentation",
    "regression": "Regression",
}


def task_tables(record: Record) -> tuple[ResultTable, ...]:
    """The tables of a record that has tasks."""
    kinds = tuple(dict.fromkeys(task.kind for task in record.tasks))
    costs = ResultTable(
        "Latency and size",
        ("", *(heading for heading, _ in _COSTS)),
        tuple((row.name, *(cell(row) for _, cell in _COSTS)) for row in record.rows),
    )
    return (*(_known(_quality(record, kind)) for kind in kinds), costs)


def _quality(record: Record, kind: TaskKind) -> ResultTable:
    """The figures of all outputs of a kind. The outputs have a column if the model has several."""
    columns, several = TASK_COLUMNS[kind], len(record.tasks) > 1
    outputs = [(i, task.output) for i, task in enumerate(record.tasks) if task.kind == kind]
    return ResultTable(
        _TITLES[kind],
        ("", *((OUTPUT,) if several else ()), *(column.heading for column in columns)),
        tuple(
            (row.name, *((name,) if several else ()), *(column.cell(row, i) for column in columns))
            for i, name in outputs
            for row in record.rows
        ),
    )


def _known(table: ResultTable) -> ResultTable:
    """The table without columns in which nothing is known."""
    kept = [i for i in range(len(table.columns)) if i == 0 or any(row[i] != NOTHING for row in table.rows)]
    return ResultTable(
        table.title,
        tuple(table.columns[i] for i in kept),
        tuple(tuple(row[i] for i in kept) for row in table.rows),
    )


_MEANS: Mapping[TaskKind, str] = {
    "classification": "Top-1 and agreement: shares of the samples.",
    "segmentation": "Mean IoU: over the classes, from the positions of all samples. Agreement: share of the positions.",
    "regression": "MAE and RMSE: against the labels; SQNR and errors: against the float Keras model.",
}


def task_notes(record: Record) -> tuple[str, ...]:
    """What the columns mean, and how far each file is from its own Keras model."""
    kinds = dict.fromkeys(task.kind for task in record.tasks)
    apart = [
        f"{prefix(record, i)}{', '.join(f'{text} ({row.name})' for row, text in _apart(record, i))}"
        for i in range(len(record.tasks))
    ]
    return (*(_MEANS[kind] for kind in kinds), f"File and simulation: {'; '.join(apart)}.")


def prefix(record: Record, output: int) -> str:
    """The name of an output before what is said of it; empty if the model has one output."""
    return f"{record.tasks[output].output}: " if len(record.tasks) > 1 else ""


_APART: Mapping[TaskKind, Callable[[OutputScores], str]] = {
    "classification": lambda scores: f"{percent_text(scores.value('agreement'))} of the classes",
    "segmentation": lambda scores: f"{percent_text(scores.value('agreement'))} of the classes",
    "regression": lambda scores: f"SQNR {decibel_text(scores.value('sqnr'))}",
}
"""How far a file is from its own Keras model."""


def _apart(record: Record, output: int) -> list[tuple[Row, str]]:
    kind = record.tasks[output].kind
    return [
        (row, _APART[kind](row.simulation_outputs[output]))
        for row in record.rows
        if output < len(row.simulation_outputs)
    ]
