"""A runtime that notes how long its runs take: what an evaluation says of speed, without reading the images.

Latency of several models, measured in turn so that a noisy machine is noisy for all of them.

What a benchmark says: frozen figures of each file at each batch size.

Latency and throughput of model files side by side, at several batch sizes.

The files run strictly in turn, so each round gives every file the same moment of a noisy machine. A ratio of two
files is therefore the median of the rounds' ratios, not the ratio of the medians.
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

from keras_qat.errors import UserError
from keras_qat.evaluation.model_inputs import as_input, fixed_batch, random_inputs
from keras_qat.progress import track
from keras_qat.runtimes import Runtime, open_runtime


class TimedRuntime(Runtime):
    """Runs another runtime, which the caller closes.

    Args:
        runtime: the model in an engine.
    """

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime.engine, runtime.device, runtime.inputs, runtime.outputs)
        self._runtime = runtime
        self._rates: list[float] = []

    @property
    def images_per_second(self) -> float | None:
        """The median over the runs, so that the first, which prepares, hardly counts; `None` before any run."""
        return float(np.median(self._rates)) if self._rates else None

    def _run(self, inputs: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        start = time.perf_counter()
        outputs = self._runtime.run(*inputs)
        # A clock may not have moved during the run of a tiny model.
        self._rates.append(len(inputs[0]) / max(time.perf_counter() - start, 1e-9))
        return outputs


RUNS = 60
WARM_UP = 10


@dataclass(frozen=True)
class Latency:
    """How long one image takes.

    Args:
        median_ms: median, milliseconds.
        p90_ms: 90th percentile, milliseconds.
        runs: how many runs were counted.
        device: where it ran.
    """

    median_ms: float
    p90_ms: float
    runs: int
    device: str


def time_in_turn(
    calls: Mapping[str, Callable[[], object]], *, runs: int, warm_up: int, description: str = "measuring latency"
) -> dict[str, NDArray[np.float64]]:
    """Time calls strictly in turn, A B C A B C …; a round calls each once.

    Args:
        calls: what to time, by name.
        runs: rounds that count.
        warm_up: rounds before, not counted.
        description: for the progress bar.

    Returns:
        Seconds, float64 of shape (runs,), by name; the k-th number of each is of the same round.

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


def measure_latency(
    runtimes: Mapping[str, Runtime], image: np.ndarray, *, runs: int = RUNS, warm_up: int = WARM_UP
) -> dict[str, Latency]:
    """Time one image in each runtime, A B C A B C …, after a warm-up of each.

    Args:
        runtimes: the models by name.
        image: float32, shape (1, height, width, channels).
        runs: counted runs of each.
        warm_up: runs of each before, not counted.

    Returns:
        The latency of each, by name.
    """
    calls = {name: partial(runtime.run, as_input(runtime, image)) for name, runtime in runtimes.items()}
    seconds = time_in_turn(calls, runs=runs, warm_up=warm_up)
    return {
        name: Latency(
            median_ms=float(np.median(seconds[name]) * 1e3),
            p90_ms=float(np.percentile(seconds[name], 90) * 1e3),
            runs=runs,
            device=runtime.device,
        )
        for name, runtime in runtimes.items()
    }


@dataclass(frozen=True)
class TimedFile:
    """A file that was opened.

    Args:
        name: as the report calls it.
        engine: which runs it, with its version.
        device: where, and on how many threads.
        inputs: what it reads, such as `image: float32 (?, 224, 224, 3)`.
    """

    name: str
    engine: str
    device: str
    inputs: tuple[str, ...]


@dataclass(frozen=True)
class Timing:
    """One file at one batch size.

    Args:
        file: name of the file.
        batch: images in a run.
        median_ms: median of the runs, milliseconds.
        p90_ms: 90th percentile, milliseconds.
        p99_ms: 99th percentile, milliseconds.
        images_per_second: batch / median.
        ratio: median over the rounds of this file's time over the first file's; below 1 is faster. `None` where the
            first file was skipped.
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
    """A batch size that a file wasn't timed at.

    Args:
        file: name of the file.
        batch: images in a run.
        reason: why.
    """

    file: str
    batch: int
    reason: str


@dataclass(frozen=True)
class Benchmark:
    """All figures.

    Args:
        files: what was opened, the first is what the others are compared with.
        timings: by batch size, then in the order of the files.
        skipped: likewise.
        runs: counted runs of each file at each batch size.
        warm_up: runs of each before, not counted.
    """

    files: tuple[TimedFile, ...]
    timings: tuple[Timing, ...]
    skipped: tuple[Skip, ...]
    runs: int
    warm_up: int

    def to_dict(self) -> dict[str, Any]:
        """The figures as JSON can hold them."""
        return asdict(self)


BATCH_SIZES = (1, 8, 32)
BENCHMARK_RUNS = 50
BENCHMARK_WARM_UP = 10


def benchmark_files(
    paths: Sequence[str | Path],
    *,
    engine: str | None = None,
    threads: int | None = None,
    batch_sizes: Iterable[int] = BATCH_SIZES,
    runs: int = BENCHMARK_RUNS,
    warm_up: int = BENCHMARK_WARM_UP,
) -> Benchmark:
    """Open model files and time them side by side on random numbers.

    Args:
        paths: the files, the first is what the others are compared with. A file is called by its name, or by its path
            where two have the same name.
        engine: of all files; by each file's suffix if not given.
        threads: of one inference, for ONNX Runtime and OpenVINO on the CPU; all cores if not given.
        batch_sizes: images in a run.
        runs: counted runs of each file at each batch size.
        warm_up: runs of each before, not counted.

    Raises:
        StorageError: a file is missing or can't be opened.
        UserError: as `benchmark`; or a file is named twice, or its engine can't run here or takes no `threads`.
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
                open_runtime(path, engine=engine, threads=threads)
            )
            for name, path in zip(names, paths, strict=True)
        }
        return benchmark(runtimes, batch_sizes=batch_sizes, runs=runs, warm_up=warm_up)


def benchmark(
    runtimes: Mapping[str, Runtime],
    *,
    batch_sizes: Iterable[int] = BATCH_SIZES,
    runs: int = BENCHMARK_RUNS,
    warm_up: int = BENCHMARK_WARM_UP,
) -> Benchmark:
    """Time opened models side by side on random numbers, A B C A B C …, at each batch size.

    Args:
        runtimes: the models by name, the first is what the others are compared with.
        batch_sizes: images in a run.
        runs: counted runs of each model at each batch size.
        warm_up: runs of each before, not counted. Each runs once before that in any case, to see whether its engine
            takes the batch.

    Raises:
        UserError: there is no model or no batch size, a number is too small, an input can't be made up, or no model
            takes any of the batch sizes.
    """
    batches = tuple(dict.fromkeys(batch_sizes))
    if not runtimes or not batches or min(*batches, runs, warm_up + 1) < 1:
        raise UserError(
            "A benchmark needs at least one file, batch sizes and runs of at least 1, and a warm-up of at least 0. "
            f"Received: {len(runtimes)} files, batch sizes {batches}, {runs} runs, warm-up {warm_up}. Give more."
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
    """Why the model can't be timed at that batch; `None` if it can."""
    fixed = fixed_batch(runtime.inputs)
    if fixed not in {None, batch}:
        return f"the file's batch is {fixed}"
    try:
        runtime.run(*inputs)
    except Exception as error:  # noqa: BLE001
        # Each engine refuses with exceptions of its own; they have no base class.
        return " ".join(str(error).split()) or type(error).__name__
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
