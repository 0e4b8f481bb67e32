"""Post-training quantization, method by method: agreement with float, top-1 and SQNR of the logits.

    pip install 'keras-qat[benchmark]'
    python benchmarks/ptq_accuracy.py --weights WEIGHTS --data IMAGE_FOLDER --output ptq_accuracy.json

Every method's ranges come from one pass over the same training images; every file is scored on the same validation
images, in the engine named. Beside them are ONNX Runtime's `quantize_static` and NNCF. Agreement
moves in steps of one image and its noise on 500 images is about half a point; SQNR of the logits is finer.
"""

import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cyclopts
import numpy as np
from engines import open_onnxruntime
from peers import PEERS, quantize_static
from rich.console import Console
from rich.table import Table
from scores import OPEN, score, sqnr

from keras_qat import apply_placement, export_onnx, plan, trace
from keras_qat.calibration import (
    OBSERVERS,
    calibrate_by_all,
    choose_weight_ranges,
    correct_bias,
    reestimate_batch_norms,
)
from keras_qat.data import ImageSet, load_data
from keras_qat.models import build_model, find

CORRECTED = ("entropy", "mse", "auto")
"""The methods whose biases are corrected as well."""

REPAIRED = "mse"
"""The method beside whose ranges every other repair is shown."""

_BATCH = 32
_SEED = 0


@dataclass(frozen=True)
class Row:
    """One quantized file."""

    target: str
    images: int
    name: str
    agreement: float
    top1: float
    sqnr: float


@dataclass(frozen=True)
class Judge:
    """The validation images, and what the float model says of them."""

    x: np.ndarray
    labels: np.ndarray
    scores: np.ndarray

    def row(self, target: str, images: int, name: str, path: Path, threads: int) -> Row:
        """Score a file."""
        scores = score(OPEN[target](path, threads), self.x, _BATCH)
        return Row(
            target=target,
            images=images,
            name=name,
            agreement=float(np.mean(scores.argmax(axis=1) == self.scores.argmax(axis=1))),
            top1=float(np.mean(scores.argmax(axis=1) == self.labels)),
            sqnr=sqnr(self.scores, scores),
        )


def main(
    *,
    weights: Path,
    data: Path,
    model: str = "resnet50",
    calibration_images: tuple[int, ...] = (256, 1000),
    images: int | None = None,
    targets: tuple[str, ...] = ("onnxruntime", "tensorrt"),
    threads: int = 2,
    output: Path | None = None,
) -> None:
    """Measure and print.

    Args:
        weights: of the network.
        data: image folder with `train/CLASS/` and `val/CLASS/`.
        model: name in the zoo.
        calibration_images: training images for the ranges; each number in turn, or as many as the split has.
        images: validation images; all if not given.
        targets: of our files.
        threads: of an engine.
        output: JSON file for all figures.
    """
    entry = find(model)
    splits = load_data(str(data), entry.preprocessing, _SEED)
    network = build_model(entry, weights=weights, num_classes=1000, size=entry.preprocessing.size)
    validation = splits.validation if images is None else splits.validation.take(images, _SEED)
    x, labels = (np.concatenate(part) for part in zip(*validation.arrays(_BATCH), strict=True))
    console = Console(width=120, stderr=True)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        float_file = export_onnx(network, folder / "float.onnx")
        judge = Judge(x, labels, score(open_onnxruntime(float_file, threads), x, _BATCH))
        for count in calibration_images:
            train = splits.train.take(count, _SEED)
            makers = [_ours(network, target, train, folder) for target in targets]
            makers.append(_peers(float_file, train, folder))
            for maker in makers:
                for target, label, path in maker:
                    rows.append(judge.row(target, len(train), label, path, threads))
                    console.print(_line(rows[-1]))
    _print(rows)
    if output is not None:
        output.write_text(json.dumps([asdict(row) for row in rows], indent=2), encoding="utf-8")


def _ours(network: Any, target: str, train: ImageSet, folder: Path) -> Iterator[tuple[str, str, Path]]:
    placement = plan(trace(network).graph, target)
    found = calibrate_by_all(network, placement, train.arrays(_BATCH), tuple(OBSERVERS))
    few = train.take(128, _SEED)

    def file(quantized: Any, label: str) -> tuple[str, str, Path]:
        return target, label, export_onnx(quantized, folder / f"{target}.onnx", target=target)

    for method, ranges in found.items():
        quantized = apply_placement(network, placement, ranges)
        yield file(quantized, method)
        if method in CORRECTED:
            yield file(correct_bias(network, quantized, few.arrays(_BATCH)).model, f"{method} + bias correction")
        if method == REPAIRED:
            renewed = reestimate_batch_norms(network, quantized, few.arrays(_BATCH)).model
            yield file(renewed, f"{method} + batch norms re-estimated")
            clipped = choose_weight_ranges(quantized).model
            clipped = correct_bias(network, clipped, few.arrays(_BATCH)).model
            yield file(clipped, f"{method} + kernel ranges by mse + bias correction")


def _peers(float_file: Path, train: ImageSet, folder: Path) -> Iterator[tuple[str, str, Path]]:
    images = [image[np.newaxis] for x, _ in train.arrays(_BATCH) for image in x]
    makers: Mapping[str, tuple[str, Any]] = {
        **{p.name: (p.runtime, p.make) for p in PEERS if p.absent() is None and p.make is not quantize_static},
        # Its Percentile and Entropy keep every activation of every image: see benchmarks/calibration.py.
        "quantize_static MinMax": ("onnxruntime", partial(quantize_static, method="MinMax")),
    }
    for name, (runtime, make) in makers.items():
        yield runtime, name, make(float_file, images, folder)


def _line(row: Row) -> str:
    return f"{row.target}, {row.images}, {row.name}: {row.agreement:.1%}, {row.top1:.1%}, {row.sqnr:.2f} dB"


def _print(rows: list[Row]) -> None:
    table = Table("target", "images", "ranges", "agreement", "top-1", "SQNR of the logits")
    for row in rows:
        figures = (f"{row.agreement:.1%}", f"{row.top1:.1%}", f"{row.sqnr:.2f} dB")
        table.add_row(row.target, str(row.images), row.name, *figures)
    Console(width=120).print(table)


if __name__ == "__main__":
    cyclopts.run(main)
