"""Latency of several models, measured in turn so that a noisy machine is noisy for all of them."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from keras_qat.evaluation.predict import as_input
from keras_qat.progress import track
from keras_qat.runtimes import Runtime

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
