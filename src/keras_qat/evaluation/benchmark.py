"""Latency and throughput of model files side by side, at several batch sizes.

The files run strictly in turn, so each round gives every file the same moment of a noisy machine. A ratio of two
files is therefore the median of the rounds' ratios, not the ratio of the medians.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from keras_qat.errors import UserError
from keras_qat.evaluation.benchmark_record import Benchmark, Skip, TimedFile, Timing
from keras_qat.evaluation.inputs import fixed_batch
from keras_qat.evaluation.latency import time_in_turn
from keras_qat.evaluation.random_inputs import random_inputs
from keras_qat.runtimes import Runtime, open_runtime

BATCH_SIZES = (1, 8, 32)
RUNS = 50
WARM_UP = 10


def benchmark_files(
    paths: Sequence[str | Path],
    *,
    engine: str | None = None,
    threads: int | None = None,
    batch_sizes: Iterable[int] = BATCH_SIZES,
    runs: int = RUNS,
    warm_up: int = WARM_UP,
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
    runs: int = RUNS,
    warm_up: int = WARM_UP,
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
