"""Images per second of the input pipeline beside a plain Pillow loop, and beside the model that reads them.

    python benchmarks/input_pipeline.py --data IMAGE_FOLDER --report input_pipeline.json
    python benchmarks/input_pipeline.py --data IMAGE_FOLDER --records SHARDS --model int8.onnx

All in one process, in turn, A B C A B C …, after a pass of each that doesn't count. Ours is `ImageSet.arrays` with
ResNet50's preprocessing, a fresh pass each time, so the start of `tf.data` is in it. The Pillow loop reads the same
files: open, convert, shorter side to 256, centre crop 224, normalize in NumPy; alone and with a thread for each core.
The model runs in ONNX Runtime on a batch that is there already. A smoke run: `--images 32 --rounds 1`.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import cyclopts
import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from keras_qat.data import FileSource, ImageSet, load_data
from keras_qat.evaluation import time_in_turn
from keras_qat.files import write_json
from keras_qat.machine import read_environment
from keras_qat.models import find
from keras_qat.runtimes import Runtime, open_runtime

PREPROCESSING = find("resnet50").preprocessing
PLAIN = "Pillow loop"
SPLITS = ("train", "validation")
_MEAN_BGR = np.array([103.939, 116.779, 123.68], np.float32)
_MODEL_IMAGES = 64
"""The model's speed doesn't depend on how often it runs, and it may be slow."""
_SEED = 0

Pass = Callable[[], None]
"""Reads some images, once."""


@dataclass(frozen=True)
class Speed:
    """How fast one way of reading is.

    Args:
        split: which images.
        name: of the way.
        images: in a pass.
        images_per_second: of each round.
        median: of those.
        ratio: median over the rounds of this speed over the Pillow loop's; above 1 is faster.
    """

    split: str
    name: str
    images: int
    images_per_second: tuple[float, ...]
    median: float
    ratio: float


def main(
    *,
    data: Path,
    records: Path | None = None,
    model: Path | None = None,
    images: int = 500,
    batch: int = 32,
    rounds: int = 5,
    report: Path | None = None,
) -> None:
    """Measure and print.

    Args:
        data: image folder with `train/CLASS/` and `val/CLASS/`.
        records: folder of TFRecord shards.
        model: ONNX file of a network that reads 224 x 224 x 3.
        images: of each split.
        batch: images in a batch.
        rounds: counted passes of each.
        report: JSON file for all figures.
    """
    sets = {"keras-qat, files": load_data(data, PREPROCESSING, _SEED)}
    if records is not None:
        sets["keras-qat, records"] = load_data(records, PREPROCESSING, _SEED)
    runtime = None if model is None else open_runtime(model, engine="onnxruntime")
    speeds: list[Speed] = []
    differences = {}
    for split in SPLITS:
        chosen = {name: getattr(splits, split).take(images, _SEED) for name, splits in sets.items()}
        paths = _paths(chosen["keras-qat, files"])
        differences[split] = _difference(chosen["keras-qat, files"], paths, batch)
        speeds += _measure(split, _passes(chosen, paths, runtime, batch), rounds)
    environment = read_environment()
    table = Table(
        "images", "what", "images/s", "range", "/ Pillow", title=f"{environment.cpu}, {environment.cores} cores"
    )
    for speed in speeds:
        low, high = min(speed.images_per_second), max(speed.images_per_second)
        table.add_row(
            f"{speed.images} {speed.split}",
            speed.name,
            f"{speed.median:.0f}",
            f"{low:.0f} to {high:.0f}",
            f"{speed.ratio:.2f}",
        )
    console = Console(width=100)
    console.print(table)
    console.print(f"Median of {rounds} passes in batches of {batch}; ratios are the median of the rounds' ratios.")
    for split, difference in differences.items():
        console.print(f"{split}: ours and Pillow's pixels differ by {difference:.3f} of 255 in the mean.")
    if report is not None:
        settings = {"batch": batch, "rounds": rounds, "model": None if model is None else model.name}
        figures = {"mean_pixel_difference": differences, "speeds": [asdict(speed) for speed in speeds]}
        write_json(report, {**settings, **figures, "environment": asdict(environment)})


def _paths(images: ImageSet) -> tuple[str, ...]:
    if not isinstance(images.source, FileSource):
        raise SystemExit("--data must be a folder of image files; give shards with --records.")
    return images.source.paths


def _passes(
    sets: dict[str, ImageSet], paths: tuple[str, ...], runtime: Runtime | None, batch: int
) -> dict[str, tuple[Pass, int]]:
    """What is timed, and how many images a pass of it has, by name."""
    cores = os.cpu_count() or 1
    passes: dict[str, tuple[Pass, int]] = {PLAIN: (partial(_consume, _plain_batches, paths, batch), len(paths))}
    if cores > 1:
        passes[f"Pillow, {cores} threads"] = (partial(_threaded, paths, batch, cores), len(paths))
    passes |= {name: (partial(_consume, images.arrays, batch), len(images)) for name, images in sets.items()}
    if runtime is not None:
        (x,) = (np.array(images) for images in _plain_batches(paths[:batch], batch))
        steps = max(1, _MODEL_IMAGES // len(x))
        passes[f"{runtime.engine}, the model"] = (partial(_run, runtime, x, steps), steps * len(x))
    return passes


def _measure(split: str, passes: dict[str, tuple[Pass, int]], rounds: int) -> list[Speed]:
    calls = {name: call for name, (call, _) in passes.items()}
    seconds = time_in_turn(calls, runs=rounds, warm_up=1, description=split)
    rates = {name: passes[name][1] / own for name, own in seconds.items()}
    return [
        Speed(
            split=split,
            name=name,
            images=passes[name][1],
            images_per_second=tuple(map(float, own)),
            median=float(np.median(own)),
            ratio=float(np.median(own / rates[PLAIN])),
        )
        for name, own in rates.items()
    ]


def _consume(batches: Callable[..., Iterator[Any]], *arguments: Any) -> None:
    deque(batches(*arguments), maxlen=0)


def _run(runtime: Runtime, x: np.ndarray, steps: int) -> None:
    for _ in range(steps):
        runtime.run(x)


def _plain(path: str) -> np.ndarray:
    """One image as the Pillow loop reads it: float32, (224, 224, 3)."""
    size, resize = PREPROCESSING.size, PREPROCESSING.resize
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    shorter = min(image.size)
    width, height = ((side * resize + shorter // 2) // shorter for side in image.size)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (width - size) // 2, (height - size) // 2
    pixels = np.asarray(image.crop((left, top, left + size, top + size)), np.float32)
    return pixels[..., ::-1] - _MEAN_BGR


def _plain_batches(paths: tuple[str, ...], batch: int) -> Iterator[np.ndarray]:
    for start in range(0, len(paths), batch):
        yield np.stack([_plain(path) for path in paths[start : start + batch]])


def _threaded(paths: tuple[str, ...], batch: int, threads: int) -> None:
    with ThreadPoolExecutor(threads) as pool:
        read = pool.map(_plain, paths)
        while images := list(islice(read, batch)):
            np.stack(images)


def _difference(images: ImageSet, paths: tuple[str, ...], batch: int) -> float:
    """How far our pixels are from the loop's, so that both are known to do the same work."""
    ours, _ = next(images.arrays(batch))
    return float(np.abs(ours - next(_plain_batches(paths, batch))).mean())


if __name__ == "__main__":
    cyclopts.run(main)
