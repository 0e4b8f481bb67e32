"""Fine-tuning as the page draws it: what moved over the epochs, and which epoch was chosen."""

from collections.abc import Callable, Sequence
from typing import Any

from keras_qat.report.record import Record
from keras_qat.training import EpochRecord

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
