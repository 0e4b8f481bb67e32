"""Batch-1 latency of several models, measured in turn so that a noisy machine is noisy for all of them."""

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

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
    seconds: dict[str, list[float]] = {name: [] for name in runtimes}
    inputs = {name: as_input(runtime, image) for name, runtime in runtimes.items()}
    for run in track(range(warm_up + runs), "measuring latency"):
        for name, runtime in runtimes.items():
            start = time.perf_counter()
            runtime.run(inputs[name])
            if run >= warm_up:
                seconds[name].append(time.perf_counter() - start)
    return {
        name: Latency(
            median_ms=float(np.median(seconds[name]) * 1e3),
            p90_ms=float(np.percentile(seconds[name], 90) * 1e3),
            runs=runs,
            device=runtime.device,
        )
        for name, runtime in runtimes.items()
    }
