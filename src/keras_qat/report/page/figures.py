"""Numbers as the page's scripts get them, and as its text says them.

Accuracy, latency and size of the variants, as the page draws them: numbers, labels and a text that says the same.

Fine-tuning as the page draws it: what moved over the epochs, and which epoch was chosen.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from keras_qat.report.in_words import Accuracy, accuracies
from keras_qat.report.record import Record, Row
from keras_qat.text import size_text, size_unit
from keras_qat.training import EpochRecord


def drawable(value: float | None) -> float | None:
    """The number, or `None` for one that no axis has a place for.

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


def percent_text(share: float) -> str:
    """A share from 0 to 1.

    Example:
        >>> percent_text(0.95555)
        '95.56%'
    """
    return f"{100 * share:.2f}%"


def accuracy_figure(record: Record) -> dict[str, Any] | None:
    """A point and its interval for each row, in Keras and deployed, in percent; `None` without labels."""
    found = accuracies(record)
    if not found:
        return None
    points = [_point(one) for one in found]
    alt = f"Top-1 with 95% intervals of {record.images} images. {_said(points)}"
    return {"points": points, "alt": alt}


def _point(one: Accuracy) -> dict[str, Any]:
    return {
        "variant": one.variant,
        "where": one.where,
        "value": 100 * one.top1.value,
        "low": 100 * one.top1.low,
        "high": 100 * one.top1.high,
        "label": f"{100 * one.top1.value:.1f}%",
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
    return {"bars": bars, "alt": f"Latency of one image, {where}. {_said(bars)}"}


def size_figure(record: Record) -> dict[str, Any]:
    """A bar for each row's file, all in the unit of the largest."""
    size, unit = size_unit(max((row.size_bytes for row in record.rows), default=0))
    texts = [(row, size_text(row.size_bytes)) for row in record.rows]
    bars = [_bar(row, row.size_bytes / size, text, f"{row.name}: {text}") for row, text in texts]
    return {"bars": bars, "unit": unit, "alt": f"Size of the file. {_said(bars)}"}


def _bar(row: Row, value: float, label: str, text: str) -> dict[str, Any]:
    return {"variant": row.name, "value": value, "label": label, "text": text}


def _said(marks: Sequence[Mapping[str, Any]]) -> str:
    return "; ".join(str(mark["text"]) for mark in marks) + "."


_Series = tuple[str, Callable[[EpochRecord], float | None]]

_PANELS: tuple[tuple[str, float, tuple[_Series, ...]], ...] = (
    ("Loss", 1, (("training", lambda it: it.train_loss), ("selection", lambda it: it.selection_loss))),
    (
        "Top-1, %",
        100,
        (("training", lambda it: it.train_accuracy), ("selection", lambda it: it.selection_accuracy)),
    ),
    ("Agreement with float, %", 100, (("selection", lambda it: it.selection_agreement),)),
    ("Learning rate", 1, (("training", lambda it: it.learning_rate),)),
)
"""(title, factor, series); a panel without any number is left out."""


def training_figure(record: Record) -> dict[str, Any] | None:
    """The curves; `None` without epochs."""
    if not record.history:
        return None
    panels = [_panel(title, factor, series, record.history) for title, factor, series in _PANELS]
    shown = [panel for panel in panels if panel["points"]]
    return {"panels": [{**panel, "alt": _alt(panel, record.best_epoch)} for panel in shown], "best": record.best_epoch}


def best_epoch_note(record: Record) -> str:
    """What the mark in the curves stands for."""
    if record.best_epoch is None:
        return ""
    chosen = "PTQ as it was, epoch 0" if record.best_epoch == 0 else f"epoch {record.best_epoch}"
    monitor = record.settings.get("monitor", "loss")
    return f"The dashed line marks the best epoch by {monitor} on the selection images: {chosen}."


def _panel(title: str, factor: float, series: Sequence[_Series], history: Sequence[EpochRecord]) -> dict[str, Any]:
    points = []
    for name, number in series:
        for epoch in history:
            value = number(epoch)
            if value is not None:
                points.append({"series": name, "epoch": epoch.epoch, "value": factor * value})
    return {"title": title, "points": points}


def _alt(panel: dict[str, Any], best: int | None) -> str:
    said = ", ".join(f"{p['series']} epoch {p['epoch']} {p['value']:.4g}" for p in panel["points"])
    return f"{panel['title']} by epoch: {said}." + ("" if best is None else f" The best is epoch {best}.")
