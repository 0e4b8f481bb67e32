"""The figures of a run as the page draws them: numbers, labels, and a text that says the same."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from keras_qat.report.in_words import Accuracy, accuracies
from keras_qat.report.record import Record, Row
from keras_qat.report.task_words import Interval, Intervals, task_intervals
from keras_qat.text import size_text, size_unit

_TOP_1 = "Top-1, %"

_PANELS = (
    ("Loss", 1, (("training", "train_loss"), ("selection", "selection_loss"))),
    (_TOP_1, 100, (("training", "train_accuracy"), ("selection", "selection_accuracy"))),
    ("Agreement with float, %", 100, (("selection", "selection_agreement"),)),
    ("Learning rate", 1, (("training", "learning_rate"),)),
)
"""The panels of the training curves: (title, factor, (series, field of `EpochRecord`) of each curve).

A panel without any number is left out.
"""


def drawable(value: float | None) -> float | None:
    """The number, or `None` for an infinite one, which no axis has a place for.

    Example:
        >>> drawable(40.0), drawable(float("inf")), drawable(None)
        (40.0, None, None)
    """
    return value if value is not None and math.isfinite(value) else None


def db_text(value: float | None) -> str:
    """An SQNR as a table shows it.

    Example:
        >>> db_text(40.04), db_text(float("inf")), db_text(None)
        ('40.0 dB', '∞ dB', '–')
    """
    if value is None:
        return "–"
    return f"{value:.1f} dB".replace("inf", "∞").replace("-", "−")


def accuracy_figures(record: Record) -> list[dict[str, Any]]:
    """Points with their intervals for each row, in Keras and deployed; a figure for each output.

    A classifier with one output has one figure of its top-1 in percent; none without labels. Other outputs have one
    of what they are judged by, or of how close they are to the float model.
    """
    if record.tasks:
        return [_intervals_figure(one, record) for one in task_intervals(record)]
    points = [_point(accuracy) for accuracy in accuracies(record)]
    if not points:
        return []
    alt = f"Top-1 with 95% intervals of {record.images} images. {_texts(points)}"
    return [{"title": "Top-1, %, with 95% intervals", "points": points, "alt": alt}]


def _point(accuracy: Accuracy) -> dict[str, Any]:
    top1 = accuracy.top1
    return {
        "variant": accuracy.variant,
        "where": accuracy.where,
        "value": 100 * top1.value,
        "low": 100 * top1.low,
        "high": 100 * top1.high,
        "label": f"{100 * top1.value:.1f}%",
        "text": f"{accuracy.variant} {accuracy.where}: {accuracy.text}",
    }


def _intervals_figure(intervals: Intervals, record: Record) -> dict[str, Any]:
    points = [_task_point(one, intervals.scale) for one in intervals.rows]
    alt = f"{intervals.title}, of {record.images} samples. {_texts(points)}"
    return {"title": intervals.title, "points": points, "alt": alt}


def _task_point(one: Interval, scale: float) -> dict[str, Any]:
    value, low, high = one.figure.value, one.figure.low, one.figure.high
    return {
        "variant": one.variant,
        "where": one.where,
        "value": scale * (value or 0.0),
        "low": scale * ((value or 0.0) if low is None else low),
        "high": scale * ((value or 0.0) if high is None else high),
        "label": one.label,
        "text": f"{one.variant} {one.where}: {one.text}",
    }


def latency_figure(record: Record, where: str) -> dict[str, Any]:
    """A bar for each row up to the median, a whisker up to the 90th percentile, in milliseconds.

    Args:
        record: of a run.
        where: "Keras" or "deployed".
    """
    bars = []
    for row in record.rows:
        latency = {"Keras": row.keras_latency, "deployed": row.deployed_latency}[where]
        text = f"{row.name}: median {latency.median_ms:.2f} ms, p90 {latency.p90_ms:.2f} ms"
        bars.append(_bar(row, latency.median_ms, f"{latency.median_ms:.1f} ms", text) | {"p90": latency.p90_ms})
    batch = record.rows[0].deployed_latency.batch
    run = "one image" if batch == 1 else f"a batch of {batch}"
    return {"bars": bars, "alt": f"Latency of {run}, {where}. {_texts(bars)}"}


def size_figure(record: Record) -> dict[str, Any]:
    """A bar for each row's file, all in the unit of the largest."""
    size, unit = size_unit(max((row.size_bytes for row in record.rows), default=0))
    texts = [(row, size_text(row.size_bytes)) for row in record.rows]
    bars = [_bar(row, row.size_bytes / size, text, f"{row.name}: {text}") for row, text in texts]
    return {"bars": bars, "unit": unit, "alt": f"Size of the file. {_texts(bars)}"}


def _bar(row: Row, value: float, label: str, text: str) -> dict[str, Any]:
    return {"variant": row.name, "value": value, "label": label, "text": text}


def _texts(marks: Sequence[Mapping[str, Any]]) -> str:
    return "; ".join(str(mark["text"]) for mark in marks) + "."


def training_figure(record: Record) -> dict[str, Any] | None:
    """The curves of fine-tuning by epoch; `None` without epochs."""
    if not record.history:
        return None
    panels = [_panel(_of_task(title, record), factor, series, record) for title, factor, series in _PANELS]
    shown = [panel for panel in panels if panel["points"]]
    return {"panels": [{**panel, "alt": _alt(panel, record.best_epoch)} for panel in shown], "best": record.best_epoch}


def _of_task(title: str, record: Record) -> str:
    """The title of a panel: what training calls accuracy is top-1 for a classifier alone."""
    return "Accuracy, %" if record.tasks and title == _TOP_1 else title


def best_epoch_note(record: Record) -> str:
    """What the dashed line in the curves marks."""
    if record.best_epoch is None:
        return ""
    chosen = "PTQ as it was, epoch 0" if record.best_epoch == 0 else f"epoch {record.best_epoch}"
    monitor = record.settings.get("monitor", "loss")
    return f"The dashed line marks the best epoch by {monitor} on the selection images: {chosen}."


def _panel(title: str, factor: float, series: Sequence[tuple[str, str]], record: Record) -> dict[str, Any]:
    points = [
        {"series": name, "epoch": epoch.epoch, "value": factor * getattr(epoch, field)}
        for name, field in series
        for epoch in record.history
        if getattr(epoch, field) is not None
    ]
    return {"title": title, "points": points}


def _alt(panel: dict[str, Any], best: int | None) -> str:
    values = ", ".join(f"{p['series']} epoch {p['epoch']} {p['value']:.4g}" for p in panel["points"])
    return f"{panel['title']} by epoch: {values}." + ("" if best is None else f" The best is epoch {best}.")
