"""Latency and throughput of several models side by side.

The models run strictly in turn, so each round gives all of them the same moment of a noisy machine. The ratio of two
models is therefore the median of the rounds' ratios, not the ratio of the medians.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_qat.errors import MOST_IMAGES_AT_ONCE, UserError, require_whole
from keras_qat.evaluation.feeding import arrays_of_inputs, as_inputs, fixed_batch, of_size, random_inputs
from keras_qat.progress import track
from keras_qat.runtimes import Runtime, open_runtime
from keras_qat.text import shortened

LATENCY_RUNS = 60
BENCHMARK_RUNS = 50
WARM_UP = 10
BATCH_SIZES = (1, 8, 32)


def time_in_turn(
    calls: Mapping[str, Callable[[], object]], *, runs: int, warm_up: int, description: str = "measuring latency"
) -> dict[str, NDArray[np.float64]]:
    """Time calls strictly in turn, A B C A B C …. Each round makes every call once.

    Args:
        calls: What to time, by name.
        runs: The number of rounds that are timed.
        warm_up: The number of rounds before them, which are not timed.
        description: What is being done, for the progress bar.

    Returns:
        Seconds by name, float64, shape (runs,). The k-th numbers of all names belong to the same round.

    Example:
        >>> calls = []
        >>> seconds = time_in_turn({name: lambda name=name: calls.append(name) for name in "AB"}, runs=2, warm_up=1)
        >>> "".join(calls), seconds["A"].shape
        ('ABABAB', (2,))
    """
    seconds = {name: np.zeros(runs) for name in calls}
    for run in track(range(-warm_up, runs), description, warm_up + runs):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            elapsed = time.perf_counter() - start
            if run >= 0:
                seconds[name][run] = elapsed
    return seconds


@dataclass(frozen=True)
class Latency:
    """How long one run takes: one image, or one batch of a model whose batch is fixed.

    Args:
        median_ms: The median in milliseconds.
        p90_ms: The 90th percentile in milliseconds.
        runs: The number of timed runs.
        device: Where the model ran.
        batch: The number of images in a run: 1, or the fixed batch of the model.
    """

    median_ms: float
    p90_ms: float
    runs: int
    device: str
    batch: int = 1


def measure_latency(
    runtimes: Mapping[str, Runtime], image: Any, *, runs: int = LATENCY_RUNS, warm_up: int = WARM_UP
) -> dict[str, Latency]:
    """Time one image in each runtime, A B C A B C …, after a warm-up of each.

    Args:
        runtimes: The models by name.
        image: One image or other sample, shape (1, …), or a tuple of such arrays for a model with several inputs. A
            model with a fixed batch is given that sample several times.
        runs: The number of timed runs of each model.
        warm_up: The number of runs of each before them, which are not timed.

    Returns:
        The latency of each model, by name.
    """
    inputs = {name: _one_run(runtime, image) for name, runtime in runtimes.items()}
    calls = {name: partial(runtime.run, *inputs[name]) for name, runtime in runtimes.items()}
    seconds = time_in_turn(calls, runs=runs, warm_up=warm_up)
    return {
        name: Latency(
            median_ms=float(np.median(seconds[name]) * 1e3),
            p90_ms=float(np.percentile(seconds[name], 90) * 1e3),
            runs=runs,
            device=runtime.device,
            batch=len(inputs[name][0]),
        )
        for name, runtime in runtimes.items()
    }


def _one_run(runtime: Runtime, image: Any) -> tuple[np.ndarray, ...]:
    """Return the inputs of one run: the image, as often as the model's fixed batch demands."""
    (filled,) = of_size([arrays_of_inputs(image)], fixed_batch(runtime.inputs))
    return as_inputs(runtime, filled)


@dataclass(frozen=True)
class TimedFile:
    """A model file of a benchmark.

    Args:
        name: The name of the file in the report.
        engine: The engine that runs it, with its version.
        device: Where it runs, and on how many threads.
        inputs: What it reads, such as `image: float32 (?, 224, 224, 3)`.
    """

    name: str
    engine: str
    device: str
    inputs: tuple[str, ...]


@dataclass(frozen=True)
class Timing:
    """One file at one batch size.

    Args:
        file: The name of the file.
        batch: The number of images in a run.
        median_ms: The median of the runs in milliseconds.
        p90_ms: The 90th percentile in milliseconds.
        p99_ms: The 99th percentile in milliseconds.
        images_per_second: batch / median.
        ratio: The median over the rounds of this file's time divided by the first file's; below 1 is faster. `None` if
            the first file was skipped.
    """

    file: str
    batch: int
    median_ms: float
    p90_ms: float
    p99_ms: float
    images_per_second: float
    ratio: float | None


@dataclass(frozen=True)
class Skip:
    """A batch size at which a file was not timed.

    Args:
        file: The name of the file.
        batch: The number of images in a run.
        reason: Why it was skipped.
    """

    file: str
    batch: int
    reason: str


@dataclass(frozen=True)
class Benchmark:
    """All figures of a benchmark.

    Args:
        files: The files. The others are compared with the first.
        timings: The timings by batch size, then in the order of the files.
        skipped: What was skipped, in the same order.
        runs: The number of timed runs of each file at each batch size.
        warm_up: The number of runs of each before them, which were not timed.
    """

    files: tuple[TimedFile, ...]
    timings: tuple[Timing, ...]
    skipped: tuple[Skip, ...]
    runs: int
    warm_up: int

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as JSON types."""
        return asdict(self)


def benchmark_files(
    paths: Sequence[str | Path],
    *,
    engine: str | None = None,
    threads: int | None = None,
    batch_sizes: Iterable[int] = BATCH_SIZES,
    runs: int = BENCHMARK_RUNS,
    warm_up: int = WARM_UP,
    trust: bool = False,
) -> Benchmark:
    """Open model files and time them side by side on random numbers.

    Args:
        paths: The files. The others are compared with the first. A file is called by its name, or by its path if two
            files have the same name.
        engine: The engine of all files; chosen by the suffix of each file by default.
        threads: The number of threads of one inference, for ONNX Runtime and OpenVINO on the CPU; all cores by default.
        batch_sizes: The numbers of images in a run.
        runs: The number of timed runs of each file at each batch size.
        warm_up: The number of runs of each before them, which are not timed.
        trust: Whether code in the files may run, as from `open_runtime`.

    Raises:
        StorageError: If a file is missing or cannot be opened.
        UserError: If `benchmark` raises it, if a file is named twice or is not trusted, or if the engine of a file
            cannot run here or does not support `threads`.
    """
    if len({Path(path).resolve() for path in paths}) < len(paths):
        raise UserError(
            f"A file can be timed only once. Received: {', '.join(map(str, paths))}. "
            "Name none twice, and none by a link to it."
        )
    names = [Path(path).name or str(path) for path in paths]
    with ExitStack() as stack:
        runtimes = {
            name if names.count(name) == 1 else str(path): stack.enter_context(
                open_runtime(path, engine=engine, threads=threads, trust=trust)
            )
            for name, path in zip(names, paths, strict=True)
        }
        return benchmark(runtimes, batch_sizes=batch_sizes, runs=runs, warm_up=warm_up)


def benchmark(
    runtimes: Mapping[str, Runtime],
    *,
    batch_sizes: Iterable[int] = BATCH_SIZES,
    runs: int = BENCHMARK_RUNS,
    warm_up: int = WARM_UP,
) -> Benchmark:
    """Time opened models side by side on random numbers, A B C A B C …, at each batch size.

    Args:
        runtimes: The models by name. The others are compared with the first.
        batch_sizes: The numbers of images in a run.
        runs: The number of timed runs of each model at each batch size.
        warm_up: The number of runs of each before them, which are not timed. Each model runs once before that in any
            case, to find out whether its engine accepts the batch size.

    Raises:
        UserError: If there is no model or no batch size, if a number isn't whole or is out of range, if random numbers
            cannot be drawn for an input, or if no model accepts any of the batch sizes.
    """
    sizes = (require_whole("batch_sizes", size, most=MOST_IMAGES_AT_ONCE) for size in batch_sizes)
    batches = tuple(dict.fromkeys(sizes))
    runs, warm_up = require_whole("runs", runs), require_whole("warm_up", warm_up, least=0)
    if not runtimes or not batches:
        raise UserError(
            "A benchmark needs at least one file and one batch size. "
            f"Received: {len(runtimes)} files, batch sizes {batches}. Give more."
        )
    timings: list[Timing] = []
    skipped: list[Skip] = []
    for batch in batches:
        inputs = {name: random_inputs(runtime.inputs, batch, model=name) for name, runtime in runtimes.items()}
        reasons = {name: _why_not(runtime, batch, inputs[name]) for name, runtime in runtimes.items()}
        skipped += [Skip(name, batch, reason) for name, reason in reasons.items() if reason is not None]
        calls = {name: partial(runtimes[name].run, *inputs[name]) for name in runtimes if reasons[name] is None}
        seconds = time_in_turn(calls, runs=runs, warm_up=warm_up, description=f"batch {batch}")
        first = seconds.get(next(iter(runtimes)))
        timings += [_timing(name, batch, own, first) for name, own in seconds.items()]
    if not timings:
        raise UserError(
            "No file takes any of these batch sizes. "
            f"Received: {'; '.join(f'{skip.file} at {skip.batch}: {skip.reason}' for skip in skipped)}. Give others."
        )
    files = tuple(
        TimedFile(name, runtime.engine, runtime.device, tuple(map(str, runtime.inputs)))
        for name, runtime in runtimes.items()
    )
    return Benchmark(files, tuple(timings), tuple(skipped), runs, warm_up)


def _why_not(runtime: Runtime, batch: int, inputs: tuple[np.ndarray, ...]) -> str | None:
    """Return why the model cannot be timed at that batch size; `None` if it can."""
    fixed = fixed_batch(runtime.inputs)
    if fixed not in {None, batch}:
        return f"the file's batch is {fixed}"
    try:
        runtime.run(*inputs)
    except Exception as error:  # noqa: BLE001
        # The engine's own exception, if it is one, fits into a table without the advice that is around it.
        return shortened(error.__cause__ or error)
    return None


def _timing(name: str, batch: int, seconds: NDArray[np.float64], first: NDArray[np.float64] | None) -> Timing:
    median, p90, p99 = (float(q) for q in np.percentile(seconds, (50, 90, 99)))
    return Timing(
        file=name,
        batch=batch,
        median_ms=1e3 * median,
        p90_ms=1e3 * p90,
        p99_ms=1e3 * p99,
        images_per_second=batch / median,
        ratio=None if first is None else float(np.median(seconds / first)),
    )
