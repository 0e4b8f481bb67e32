"""A row of what fine-tuning gains: how far a file, or the float model, is from float and from the labels."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from scores import SMALLEST, sqnr


@dataclass(frozen=True)
class Row:
    """One file, or the float model.

    Args:
        model: of the zoo.
        target: of the file; empty for the float model.
        name: float, PTQ or QAT.
        seed: of the calibration, and of the fine-tuning; `None` for float.
        best_epoch: of the fine-tuning; 0 is PTQ as it was.
        agreement: share of images with float's class.
        top1: share of images with their label.
        kl: mean over the images of KL(float ‖ file).
        gain: mean over the images of the divergence of the same seed's PTQ less this one's.
        gain_error: the standard error of that.
        sqnr: of the logits, in dB.
    """

    model: str
    target: str
    name: str
    seed: int | None
    best_epoch: int | None
    agreement: float
    top1: float
    kl: float
    gain: float
    gain_error: float
    sqnr: float


def make_row(exact: np.ndarray, ptq: np.ndarray, found: np.ndarray, labels: np.ndarray, **names: Any) -> Row:
    """Judge the probabilities `found`, shape (images, classes), beside those of float and of the same seed's PTQ."""
    gains = _divergence(exact, ptq) - _divergence(exact, found)
    return Row(
        agreement=float(np.mean(found.argmax(axis=1) == exact.argmax(axis=1))),
        top1=float(np.mean(found.argmax(axis=1) == labels)),
        kl=float(_divergence(exact, found).mean()),
        gain=float(gains.mean()),
        gain_error=float(gains.std() / np.sqrt(len(gains))),
        sqnr=sqnr(exact, found),
        **names,
    )


def _divergence(exact: np.ndarray, found: np.ndarray) -> np.ndarray:
    """KL(exact ‖ found) of each image, in nats."""
    p, q = exact.astype(np.float64), found.astype(np.float64)
    return np.asarray(np.sum(p * (np.log(p + SMALLEST) - np.log(q + SMALLEST)), axis=1))


def show_rows(found: Iterable[Row], report: Path | None) -> None:
    """Print each row as it comes and all to JSON so far; then a table of them, and the means over seeds.

    Args:
        found: the rows, each of which may take minutes.
        report: the JSON file, if one is wanted.
    """
    rows: list[Row] = []
    for row in found:
        rows.append(row)
        Console(stderr=True, width=160).print(row)
        if report is not None:
            report.write_text(json.dumps([asdict(row) for row in rows], indent=2), encoding="utf-8")
    _print(rows)


def _print(rows: list[Row]) -> None:
    table = Table("model", "target", "", "seed", "epoch", "agreement", "top-1", "KL", "gain over PTQ", "SQNR")
    for row in rows:
        own = row.best_epoch is not None
        table.add_row(
            row.model,
            row.target,
            row.name,
            "" if row.seed is None else str(row.seed),
            str(row.best_epoch) if own else "",
            f"{row.agreement:.1%}",
            f"{row.top1:.2%}",
            f"{row.kl:.5f}",
            f"{row.gain:+.5f} ± {row.gain_error:.5f}" if own else "",
            f"{row.sqnr:.2f} dB",
        )
    Console(width=140).print(table)
    for key in dict.fromkeys((row.model, row.target, row.name) for row in rows if row.seed is not None):
        found = [row for row in rows if (row.model, row.target, row.name) == key]
        agreement, top1 = (np.mean([getattr(row, name) for row in found]) for name in ("agreement", "top1"))
        print(f"{', '.join(key)}, mean of {len(found)} seeds: agreement {agreement:.2%}, top-1 {top1:.2%}")
