"""A run as the template lays it out: texts and tables, the data of the drawings, and why a section is empty."""

from dataclasses import dataclass
from typing import Any

from keras_qat.evaluation import Advice
from keras_qat.report.cell_text import percent_text
from keras_qat.report.diagnosis_text import DiagnosisFile, grouped_advice
from keras_qat.report.in_words import KeyFigure, accuracies, interval_text, key_figures, verdict
from keras_qat.report.page import figures, graph
from keras_qat.report.record import Record, RunFiles, chosen_row, environment_facts, setting_facts
from keras_qat.report.tables import footnotes, result_tables, title
from keras_qat.report.task_tables import ResultTable
from keras_qat.report.task_words import task_intervals


@dataclass(frozen=True)
class LayersView:
    """The diagnosis of a variant.

    Args:
        variant: name of its row.
        images: the number of images that it was measured on.
        rows: every tensor and kernel, in the order of the graph.
        worst: those with the lowest SQNR alone, the lowest first.
        outputs: (name, cumulative SQNR) of each output.
        advice: (remedy, all advice that recommends it).
    """

    variant: str
    images: int
    rows: tuple[graph.LayerRow, ...]
    worst: tuple[graph.LayerRow, ...]
    outputs: tuple[tuple[str, str], ...]
    advice: list[tuple[str, list[Advice]]]


@dataclass(frozen=True)
class RunView:
    """All that the page says about a run.

    Args:
        key: of the run's elements on the page.
        title: one line.
        verdict: sentences.
        key_figures: the numbers to see first.
        tables: the results.
        intervals: of each chart of accuracy: its headings, then (variant, where, …) of its points.
        wilson: whether the intervals are Wilson's, of a classifier's shares.
        layers: the diagnosis of each variant that has one.
        first_tensor: the tensor that the explorer shows first, the worst; empty without a diagnosis.
        notes: {section: why it is empty, or what its marks mean}.
        facts: {title: the rows of a table of two columns}.
        footnotes: of the results table.
        data: what the scripts draw.
    """

    key: str
    title: str
    verdict: tuple[str, ...]
    key_figures: tuple[KeyFigure, ...]
    tables: tuple[ResultTable, ...]
    intervals: tuple[tuple[tuple[str, ...], ...], ...]
    wilson: bool
    layers: tuple[LayersView, ...]
    first_tensor: str
    notes: dict[str, str]
    facts: dict[str, list[tuple[str, str]]]
    footnotes: tuple[str, ...]
    data: dict[str, Any]


def run_view(files: RunFiles, key: str) -> RunView:
    """Compute the view of a run.

    Args:
        files: of the run.
        key: unique on the page.
    """
    record = files.record
    chosen = chosen_row(record)
    diagnosed = None if chosen is None else files.diagnoses.get(chosen.name)
    layers = tuple(_layers(variant, file, files) for variant, file in files.diagnoses.items())
    drawings = {
        "accuracy": figures.accuracy_figures(record),
        "deployed": figures.latency_figure(record, "deployed"),
        "keras": figures.latency_figure(record, "Keras"),
        "size": figures.size_figure(record),
        "training": figures.training_figure(record),
        "layers": [
            graph.layers_figure(view.variant, files.diagnoses[view.variant].diagnosis, view.rows) for view in layers
        ],
        "tensors": graph.tensor_views(files),
        "graph": graph.graph_view(files),
    }
    return RunView(
        key=key,
        title=title(record),
        verdict=verdict(record, None if diagnosed is None else diagnosed.diagnosis),
        key_figures=key_figures(record),
        tables=result_tables(record),
        intervals=_intervals(record),
        wilson=not record.tasks,
        layers=layers,
        first_tensor=next((row.tensor for view in layers for row in view.worst if row.tensor is not None), ""),
        notes=_notes(files, drawings),
        facts={
            "Environment": environment_facts(record.environment),
            "Seconds per stage": [(stage, f"{seconds:.1f}") for stage, seconds in record.seconds.items()],
            "Settings": setting_facts(record.settings),
        },
        footnotes=footnotes(record),
        data={"key": key, **drawings},
    )


def _intervals(record: Record) -> tuple[tuple[tuple[str, ...], ...], ...]:
    """The numbers of each chart of accuracy, as a table: headings, then rows."""
    if record.tasks:
        return tuple(
            (("", "in", one.title), *((row.variant, row.where, row.text) for row in one.rows))
            for one in task_intervals(record)
        )
    rows = tuple(
        (accuracy.variant, accuracy.where, percent_text(accuracy.top1.value), interval_text(accuracy.top1))
        for accuracy in accuracies(record)
    )
    return ((("", "in", "top-1", "95% interval"), *rows),) if rows else ()


def _layers(variant: str, file: DiagnosisFile, files: RunFiles) -> LayersView:
    diagnosis = file.diagnosis
    rows = graph.layer_rows(diagnosis, files.placement)
    by_label = {row.cells[0]: row for row in rows}
    return LayersView(
        variant=variant,
        images=diagnosis.images,
        rows=rows,
        worst=tuple(by_label[layer.label] for layer in diagnosis.worst(graph.WORST)),
        outputs=tuple((output.name, figures.db_text(output.cumulative)) for output in diagnosis.outputs),
        advice=grouped_advice(file.advice),
    )


def _notes(files: RunFiles, drawings: dict[str, Any]) -> dict[str, str]:
    """A line for each section that is empty or has marks to explain."""
    absent = files.absent
    notes = {
        "accuracy": "" if drawings["accuracy"] else "The validation images have no labels, so accuracy isn't known.",
        "layers": " ".join(absent[row.name] for row in files.record.rows if row.name in absent),
        "tensors": absent.get("ranges", ""),
        "histograms": "",
        "graph": absent.get("placement", ""),
        "training": figures.best_epoch_note(files.record),
    }
    if drawings["tensors"] and not any(tensor["histogram"] for tensor in drawings["tensors"]):
        notes["histograms"] = "ranges.json has no histograms: the method doesn't count them, or the run is older."
    if not drawings["training"]:
        tuned = files.record.best_epoch is not None
        missing = "results.json has no history of fine-tuning: the run is older."
        notes["training"] = missing if tuned else "The run did no fine-tuning."
    return notes
