"""Our float and INT8 files beside those of ONNX Runtime's quantizer and NNCF: latency, agreement and top-1.

    pip install 'keras-qat[benchmark]'
    python benchmarks/deploy.py --weights WEIGHTS --data IMAGE_FOLDER --output deploy.json

All in one process. All tools quantize our float ONNX file (ours the Keras model that it was made from) with the same
calibration images. In each engine the files run in turn, A B C A B C …, after a warm-up. A tool or engine that isn't
installed is listed as absent, with the reason. A smoke run: `--calibration-images 8 --images 16 --runs 3`.
"""

import json
import os
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cyclopts
import numpy as np
from engines import ENGINES, Engine, Run
from peers import PEERS
from rich.console import Console
from rich.table import Table

from keras_qat import apply_placement, calibrate, correct_bias, export_onnx, plan, trace
from keras_qat.data import Splits, load_data
from keras_qat.errors import UserError
from keras_qat.machine import read_environment
from keras_qat.models import build_model, find
from keras_qat.targets import Target, find_target

BATCHES = (1, 8)
WARM_UP = 10
SEED = 0
FLOAT, INT8 = "keras-qat, float", "keras-qat, INT8"
_EVALUATION_BATCH = 25
_CALIBRATION_BATCH = 32
_CORRECTION_IMAGES = 128


@dataclass
class Row:
    """One file in one engine."""

    engine: str
    name: str
    absent: str | None = None
    target: str | None = None
    megabytes: float | None = None
    made_in_seconds: float | None = None
    milliseconds: dict[int, dict[str, float]] = field(default_factory=dict)
    top1: float | None = None
    agreement: float | None = None


def main(
    *,
    weights: Path,
    data: Path,
    model: str = "resnet50",
    calibration_images: int = 256,
    images: int | None = None,
    runs: int = 60,
    threads: int | None = None,
    folder: Path | None = None,
    reuse: bool = False,
    output: Path | None = None,
) -> None:
    """Make the files, measure them, print one table.

    Args:
        weights: of the network.
        data: image folder with `train/CLASS/` and `val/CLASS/`.
        model: name in the zoo.
        calibration_images: from `train`, the same for every tool.
        images: validation images for agreement and top-1; all if not given.
        runs: counted runs of each file at each batch size.
        threads: of one inference; all cores if not given.
        folder: where the files stay; a temporary one if not given.
        reuse: measure the files that an earlier run left in `folder`, made as this one would make them.
        output: JSON file for the results.
    """
    threads = threads or os.cpu_count() or 1
    entry = find(model)
    splits = load_data(data, entry.preprocessing, SEED)
    keras_model = build_model(entry, weights=weights, num_classes=splits.num_classes, size=entry.preprocessing.size)
    with tempfile.TemporaryDirectory() as temporary:
        kept = (folder or Path(temporary)) / "files.json"
        files, rows = _read(kept) if reuse else _make(keras_model, splits, calibration_images, kept.parent)
        kept.write_text(json.dumps([[str(files.get((row.engine, row.name), "")), asdict(row)] for row in rows]))
        for engine in ENGINES:
            if engine.absent() is None:
                _measure(engine, files, rows, splits, images, runs, threads)
    results = {
        "model": model,
        "threads": threads,
        "runs": runs,
        "calibration_images": calibration_images,
        "images": images or len(splits.validation),
        "rows": [asdict(row) for row in rows],
        "ratios": _ratios(rows),
        "engines": [engine.title for engine in ENGINES if engine.absent() is None],
        "environment": asdict(read_environment()),
    }
    _show(results, rows)
    if output is not None:
        output.write_text(json.dumps(results, indent=2) + "\n")


def _read(kept: Path) -> tuple[dict[tuple[str, str], Path], list[Row]]:
    """The files of an earlier run, and a row for each."""
    rows = [(Path(path), Row(**row)) for path, row in json.loads(kept.read_text())]
    return {(row.engine, row.name): path for path, row in rows}, [row for _, row in rows]


def _make(
    model: Any, splits: Splits, calibration_images: int, folder: Path
) -> tuple[dict[tuple[str, str], Path], list[Row]]:
    """Every file by (engine, name), and a row for each."""
    folder.mkdir(parents=True, exist_ok=True)
    chosen = splits.train.take(calibration_images, SEED)
    singles = [x for x, _ in chosen.arrays(1)]
    files: dict[tuple[str, str], Path] = {}
    rows = []
    start = time.perf_counter()
    float_file = export_onnx(model, folder / "float.onnx")
    float_seconds = time.perf_counter() - start
    for engine in ENGINES:
        target = _target(engine)
        absent = engine.absent()
        rows += [Row(engine.name, FLOAT, absent, None), Row(engine.name, INT8, absent, target.name)]
        if absent is None:
            start = time.perf_counter()
            placement = plan(trace(model).graph, target)
            ranges = calibrate(model, placement, (x for x, _ in chosen.arrays(_CALIBRATION_BATCH)))
            quantized = apply_placement(model, placement, ranges)
            few = splits.train.take(min(calibration_images, _CORRECTION_IMAGES), SEED)
            quantized = correct_bias(model, quantized, (x for x, _ in few.arrays(_CALIBRATION_BATCH))).model
            files[engine.name, FLOAT] = float_file
            files[engine.name, INT8] = export_onnx(quantized, folder / f"int8-{engine.name}.onnx", target=target)
            rows[-2].made_in_seconds, rows[-1].made_in_seconds = float_seconds, time.perf_counter() - start
        for peer in (p for p in PEERS if p.runtime == engine.name):
            row = Row(engine.name, peer.name, absent or peer.absent())
            rows.append(row)
            if row.absent is None:
                start = time.perf_counter()
                files[engine.name, peer.name] = peer.make(float_file, singles, folder)
                row.made_in_seconds = time.perf_counter() - start
    for row in rows:
        if row.absent is None:
            path = files[row.engine, row.name]
            parts = (path, path.with_suffix(".bin")) if path.suffix == ".xml" else (path,)
            row.megabytes = sum(part.stat().st_size for part in parts) / 1e6
    return files, rows


def _target(engine: Engine) -> Target:
    """Our first target for the engine that this version knows."""
    *preferred, fallback = engine.targets
    for name in preferred:
        with suppress(UserError):
            return find_target(name)
    return find_target(fallback)


def _measure(
    engine: Engine,
    files: dict[tuple[str, str], Path],
    rows: list[Row],
    splits: Splits,
    images: int | None,
    runs: int,
    threads: int,
) -> None:
    """Fill in what one engine says."""
    present = {row.name: row for row in rows if row.engine == engine.name and row.absent is None}
    models = {name: engine.open(files[engine.name, name], threads) for name in present}
    validation = splits.validation if images is None else splits.validation.take(images, SEED)
    batch, _ = next(validation.arrays(max(BATCHES)))
    for size in BATCHES:
        for name, summary in _latency(models, batch[:size], runs).items():
            present[name].milliseconds[size] = summary
    classes: dict[str, list[np.ndarray]] = {name: [] for name in models}
    labels = []
    for x, y in validation.arrays(_EVALUATION_BATCH):
        labels.append(y)
        for name, run in models.items():
            classes[name].append(run(x).argmax(axis=1))
    best = {name: np.concatenate(parts) for name, parts in classes.items()}
    for name, row in present.items():
        row.top1 = float(np.mean(best[name] == np.concatenate(labels)))
        row.agreement = float(np.mean(best[name] == best[FLOAT]))


def _latency(models: dict[str, Run], batch: np.ndarray, runs: int) -> dict[str, dict[str, float]]:
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for i in range(WARM_UP + runs):
        for name, run in models.items():
            start = time.perf_counter()
            run(batch)
            if i >= WARM_UP:
                seconds[name].append(time.perf_counter() - start)
    return {
        name: {"median": 1e3 * float(np.median(s)), "p90": 1e3 * float(np.percentile(s, 90))}
        for name, s in seconds.items()
    }


def _ratios(rows: list[Row]) -> list[dict[str, Any]]:
    """For each engine and batch: ours over the best peer (below 1 is faster), and float over INT8."""
    found = []
    for engine in ENGINES:
        for size in BATCHES:
            median = {
                r.name: r.milliseconds[size]["median"] for r in rows if r.engine == engine.name and r.milliseconds
            }
            peers = {name: ms for name, ms in median.items() if name not in {FLOAT, INT8}}
            if not median:
                continue
            best = min(peers, key=lambda name: peers[name], default=None)
            found.append(
                {
                    "engine": engine.name,
                    "batch": size,
                    "best_peer": best,
                    "ours_over_best_peer": None if best is None else median[INT8] / peers[best],
                    "float_over_int8": median[FLOAT] / median[INT8],
                }
            )
    return found


def _show(results: dict[str, Any], rows: list[Row]) -> None:
    title = f"{results['model']}, {results['threads']} threads, {results['environment']['cpu']}"
    table = Table("engine", "file", *(f"batch {b}, ms" for b in BATCHES), "agreement", "top-1", "MB", title=title)
    for row in rows:
        if row.absent is not None:
            table.add_row(row.engine, row.name, row.absent)
            continue
        times = (f"{row.milliseconds[b]['median']:.2f} (p90 {row.milliseconds[b]['p90']:.2f})" for b in BATCHES)
        name = row.name if row.target is None else f"{row.name} (target {row.target})"
        shares = (f"{100 * (share or 0):.1f}%" for share in (row.agreement, row.top1))
        table.add_row(row.engine, name, *times, *shares, f"{row.megabytes:.1f}")
    console = Console(width=140)
    console.print(table)
    console.print(f"Median of {results['runs']} interleaved runs; agreement and top-1 on {results['images']} images.")
    for r in results["ratios"]:
        peer = "no peer" if r["best_peer"] is None else f"ours / {r['best_peer']} = {r['ours_over_best_peer']:.2f}"
        console.print(f"{r['engine']}, batch {r['batch']}: {peer}; float / INT8 = {r['float_over_int8']:.2f}")


if __name__ == "__main__":
    cyclopts.run(main)
