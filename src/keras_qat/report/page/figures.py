"""Accuracy, latency and size of the variants, as the page draws them: numbers, labels and a text that says the same."""

from collections.abc import Mapping, Sequence
from typing import Any

from keras_qat.report.intervals import Accuracy, accuracies
from keras_qat.report.record import Record, Row
from keras_qat.sizes import size_text, size_unit


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
