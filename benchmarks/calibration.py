"""What calibration costs beside plain inference, and beside ONNX Runtime's calibrators.

    python benchmarks/calibration.py --weights WEIGHTS --data IMAGE_FOLDER --output calibration.json

Time: in one process, each method in turn with `model.predict` on the same images in the same batches, each on a model
that never ran; the table has the medians' ratio. Memory: a process for each job, since a process never gives its peak
back; what counts is the peak above that of `predict`. `quantize_static` runs under a limit of memory and of time.
"""

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cyclopts
import numpy as np
from peers import quantize_static
from rich.console import Console
from rich.table import Table

from keras_qat import calibrate, export_onnx, plan, trace
from keras_qat.calibration import OBSERVERS
from keras_qat.data import load_data
from keras_qat.models import build_model, find

PEER_METHODS = ("MinMax", "Percentile", "Entropy")
TARGET = "onnxruntime"
_BATCH = 32
_SEED = 0
_LIMIT_GB = 14
_LIMIT_SECONDS = 900

app = cyclopts.App()


@dataclass(frozen=True)
class Job:
    """What one process is to measure.

    Args:
        name: predict, one of our methods, or `quantize_static` with one of its.
        images: how many.
    """

    name: str
    images: int


@dataclass(frozen=True)
class Cost:
    """What it took; the reason if it failed."""

    job: Job
    seconds: float | None = None
    peak_mb: float | None = None
    failed: str | None = None


@dataclass(frozen=True)
class Pixels:
    """Decoded images on disk, read batch by batch: a memory map would count as memory of whoever reads it.

    Args:
        path: float32, one image after the other.
        count: how many to read.
        size: side of an image.
    """

    path: Path
    count: int
    size: int = 224

    def batches(self) -> Iterator[np.ndarray]:
        """Float32 arrays of up to 32 images."""
        numbers = self.size * self.size * 3
        for start in range(0, self.count, _BATCH):
            many = min(_BATCH, self.count - start)
            x = np.fromfile(self.path, np.float32, many * numbers, offset=start * numbers * 4)
            yield x.reshape(many, self.size, self.size, 3)


@app.default
def main(
    *,
    weights: Path,
    data: Path,
    model: str = "resnet50",
    images: int = 512,
    rounds: int = 3,
    peers: bool = True,
    output: Path | None = None,
) -> None:
    """Measure and print.

    Args:
        weights: of the network.
        data: image folder with `train/CLASS/`.
        model: name in the zoo.
        images: training images for the times; memory is also taken at 128 and at 1000, or all there are.
        rounds: of the times.
        peers: measure `quantize_static`, too.
        output: JSON file for all figures.
    """
    with tempfile.TemporaryDirectory() as name:
        pixels = Path(name) / "images.raw"
        most = _decode(model, data, 1000, pixels)
        common = (model, str(weights), str(pixels))
        seconds = _child(common, "times", str(images), str(rounds))
        jobs = [Job(n, count) for count in (128, images, most) for n in ("predict", "minmax", "mse")]
        if peers:
            jobs = [*(Job(f"quantize_static {m}", images) for m in PEER_METHODS), *jobs]
        costs = [_cost(common, job) for job in jobs]
    _print(seconds, costs, images)
    if output is not None:
        figures = {"images": images, "seconds": seconds, "costs": [asdict(cost) for cost in costs]}
        output.write_text(json.dumps(figures, indent=2), encoding="utf-8")


@app.command(name="times", show=False)
def times(model: str, weights: Path, pixels: Path, images: int, rounds: int) -> None:
    """Print {job: seconds of each round} as JSON, all interleaved in this process."""
    x = Pixels(pixels, images)
    found: dict[str, list[float]] = {name: [] for name in ("predict", *OBSERVERS)}
    for _ in range(rounds):
        for name, seconds in found.items():
            # A model that has run before is compiled already; calibration never finds one like that.
            network = _network(model, weights)
            placement = plan(trace(network).graph, TARGET)
            start = time.perf_counter()
            if name == "predict":
                _predict(network, x)
            else:
                calibrate(network, placement, x.batches(), method=name)
            seconds.append(time.perf_counter() - start)
    sys.stdout.write(json.dumps(found))


@app.command(name="cost", show=False)
def cost(model: str, weights: Path, pixels: Path, name: str, images: int) -> None:
    """Do one job and print its time and this process's peak of memory as JSON."""
    x = Pixels(pixels, images)
    network = _network(model, weights)
    tool, _, method = name.partition(" ")
    with tempfile.TemporaryDirectory() as folder:
        if method:
            file = export_onnx(network, Path(folder) / "float.onnx")
            limit = _LIMIT_GB << 30
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
            one_by_one = (image[np.newaxis] for batch in x.batches() for image in batch)
            run: Callable[[], Any] = partial(quantize_static, file, one_by_one, Path(folder), method)
        elif tool == "predict":
            run = partial(_predict, network, x)
        else:
            placement = plan(trace(network).graph, TARGET)
            run = partial(calibrate, network, placement, x.batches(), method=name)
        start = time.perf_counter()
        run()
        seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sys.stdout.write(json.dumps({"seconds": seconds, "peak_mb": peak}))


def _network(model: str, weights: Path) -> Any:
    entry = find(model)
    return build_model(entry, weights=weights, num_classes=1000, size=entry.preprocessing.size)


def _predict(network: Any, x: Pixels) -> None:
    for batch in x.batches():
        network.predict_on_batch(batch)


def _decode(model: str, data: Path, count: int, path: Path) -> int:
    """Write `count` training images, or as many as the split has; return how many."""
    train = load_data(str(data), find(model).preprocessing, _SEED).train.take(count, _SEED)
    with path.open("wb") as file:
        for x, _ in train.arrays(_BATCH):
            x.tofile(file)
    return len(train)


def _child(common: tuple[str, ...], command: str, *rest: str, limit: float | None = None) -> Any:
    arguments = [sys.executable, __file__, command, *common, *rest]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=limit, check=False)  # noqa: S603
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RuntimeError(f"exit code {done.returncode}: {last[:160]}")
    return json.loads(done.stdout)


def _cost(common: tuple[str, ...], job: Job) -> Cost:
    try:
        found = _child(common, "cost", job.name, str(job.images), limit=_LIMIT_SECONDS)
    except RuntimeError as error:
        return Cost(job, failed=str(error))
    except subprocess.TimeoutExpired:
        return Cost(job, failed=f"not done after {_LIMIT_SECONDS} s")
    return Cost(job, **found)


def _print(seconds: dict[str, list[float]], costs: list[Cost], images: int) -> None:
    console = Console(width=120)
    table = Table("method", "seconds", "over predict", title=f"{images} images, batches of {_BATCH}, medians")
    plain = statistics.median(seconds["predict"])
    for name, found in seconds.items():
        median = statistics.median(found)
        table.add_row(name, f"{median:.1f}", f"{median / plain:.2f}")
    console.print(table)
    table = Table("job", "images", "seconds", "peak MB", "above predict", title="a process for each job")
    base = {c.job.images: c.peak_mb for c in costs if c.job.name == "predict"}
    for c in costs:
        if c.failed or c.peak_mb is None:
            table.add_row(c.job.name, str(c.job.images), c.failed, "–", "–")
        else:
            above = c.peak_mb - (base[c.job.images] or 0)
            table.add_row(c.job.name, str(c.job.images), f"{c.seconds:.1f}", f"{c.peak_mb:.0f}", f"{above:.0f}")
    console.print(table)


if __name__ == "__main__":
    app()
