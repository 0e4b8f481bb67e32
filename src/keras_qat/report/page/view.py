"""One run as the template lays it out: texts and tables, the data of its drawings, and why a section is empty."""

import json
from dataclasses import dataclass
from typing import Any

from keras_qat.evaluation import Advice
from keras_qat.placement import PLACEMENT_FILE, rule_to_json
from keras_qat.report.diagnosis_text import DiagnosisFile
from keras_qat.report.in_words import KeyFigure, accuracies, interval_text, key_figures, verdict
from keras_qat.report.page.figures import (
    accuracy_figure,
    best_epoch_note,
    db_text,
    latency_figure,
    percent_text,
    size_figure,
    training_figure,
)
from keras_qat.report.page.graph import (
    WORST,
    LayerRow,
    graph_view,
    grouped_advice,
    layer_rows,
    layers_figure,
    tensor_views,
)
from keras_qat.report.record import chosen_row, environment_facts, setting_facts
from keras_qat.report.run_files import RunFiles
from keras_qat.report.tables import COLUMNS, footnotes, title


@dataclass(frozen=True)
class LayersView:
    """A diagnosed variant.

    Args:
        variant: name of its row.
        images: how many it was measured on.
        rows: every tensor and kernel, in the order of the graph.
        worst: those with the lowest SQNR alone, the lowest first.
        outputs: (name, cumulative SQNR).
        advice: (remedy, what it is for).
    """

    variant: str
    images: int
    rows: tuple[LayerRow, ...]
    worst: tuple[LayerRow, ...]
    outputs: tuple[tuple[str, str], ...]
    advice: list[tuple[str, list[Advice]]]


@dataclass(frozen=True)
class RunView:
    """A run.

    Args:
        key: of its elements on the page.
        title: one line.
        verdict: sentences.
        key_figures: the numbers to see first.
        table: the results, a row of cells each.
        intervals: (variant, where, top-1, its 95% interval).
        layers: what was diagnosed.
        first_tensor: the one that the explorer shows first, the worst; empty without a diagnosis.
        notes: {section: why it is empty, or what its marks mean}.
        facts: tables of two columns, by their title.
        footnotes: of the results.
        data: what the scripts draw.
    """

    key: str
    title: str
    verdict: tuple[str, ...]
    key_figures: tuple[KeyFigure, ...]
    table: tuple[tuple[str, ...], ...]
    intervals: tuple[tuple[str, ...], ...]
    layers: tuple[LayersView, ...]
    first_tensor: str
    notes: dict[str, str]
    facts: dict[str, list[tuple[str, str]]]
    footnotes: tuple[str, ...]
    data: dict[str, Any]


def run_view(files: RunFiles, key: str) -> RunView:
    """All that the page says about a run.

    Args:
        files: of the run.
        key: unique on the page.
    """
    record = files.record
    chosen = chosen_row(record)
    diagnosed = None if chosen is None else files.diagnoses.get(chosen.name)
    layers = tuple(_layers(variant, found, files) for variant, found in files.diagnoses.items())
    figures = {
        "accuracy": accuracy_figure(record),
        "deployed": latency_figure(record, "deployed"),
        "keras": latency_figure(record, "Keras"),
        "size": size_figure(record),
        "training": training_figure(record),
        "layers": [layers_figure(it.variant, files.diagnoses[it.variant].diagnosis, it.rows) for it in layers],
        "tensors": tensor_views(files),
        "graph": graph_view(files),
    }
    return RunView(
        key=key,
        title=title(record),
        verdict=verdict(record, None if diagnosed is None else diagnosed.diagnosis),
        key_figures=key_figures(record),
        table=tuple(tuple(cell(row) for _, cell in COLUMNS) for row in record.rows),
        intervals=tuple(
            (one.variant, one.where, percent_text(one.top1.value), interval_text(one.top1))
            for one in accuracies(record)
        ),
        layers=layers,
        first_tensor=next((row.tensor for it in layers for row in it.worst if row.tensor is not None), ""),
        notes=_notes(files, figures),
        facts={
            "Environment": environment_facts(record.environment),
            "Seconds per stage": [(stage, f"{seconds:.1f}") for stage, seconds in record.seconds.items()],
            "Settings": setting_facts(record.settings),
        },
        footnotes=footnotes(record),
        data={"key": key, **figures},
    )


def rule_text(advice: Advice) -> str:
    """The rule of an override that keeps it in float, as JSON; empty where there is none."""
    return "" if advice.rule is None else json.dumps(rule_to_json(advice.rule))


def _layers(variant: str, found: DiagnosisFile, files: RunFiles) -> LayersView:
    rows = layer_rows(found.diagnosis, files.placement)
    by_label = {row.cells[0]: row for row in rows}
    return LayersView(
        variant=variant,
        images=found.diagnosis.images,
        rows=rows,
        worst=tuple(by_label[one.label] for one in found.diagnosis.worst(WORST)),
        outputs=tuple((one.name, db_text(one.cumulative)) for one in found.diagnosis.outputs),
        advice=grouped_advice(found.advice),
    )


def _notes(files: RunFiles, figures: dict[str, Any]) -> dict[str, str]:
    """A line for each section that is empty, and for marks that need one."""
    absent = files.absent
    diagnosable = [f"{row.name.lower()}_diagnosis.json" for row in files.record.rows]
    notes = {
        "accuracy": "" if figures["accuracy"] else "The validation images have no labels, so accuracy isn't known.",
        "layers": " ".join(absent[name] for name in diagnosable if name in absent),
        "tensors": absent.get("ranges.json", ""),
        "histograms": "",
        "graph": absent.get(PLACEMENT_FILE, ""),
        "training": best_epoch_note(files.record),
    }
    if figures["tensors"] and not any(tensor["histogram"] for tensor in figures["tensors"]):
        notes["histograms"] = "ranges.json has no histograms: the method doesn't count them, or the run is older."
    if not figures["training"]:
        tuned = files.record.best_epoch is not None
        missing = "results.json has no history of fine-tuning: the run is older."
        notes["training"] = missing if tuned else "The run did no fine-tuning."
    return notes
