"""Batch-1 latency of a run's files on this machine's NVIDIA GPU, in every engine that is installed.

    python benchmarks/gpu_latency.py RUN_FOLDER

All .onnx files of the folder take part: float, FP16 and INT8, whatever `keras-qat run` or you have put there. Within an
engine they run in turn, A B C A B C …, so that clocks and other work touch them alike. An inference includes the copies
to the GPU and back. Exit code 2 where no engine can run.
"""

import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path

import cyclopts
import numpy as np
from rich.console import Console
from rich.table import Table

from keras_qat.errors import UserError
from keras_qat.evaluation import measure_latency
from keras_qat.runtimes import ADAPTERS, BatchRange, OnnxRuntime, Runtime, build_engine, open_runtime

Open = Callable[[Path, Path], Runtime]
CONSOLE = Console(width=120)


def _opener(engine: str) -> Open:
    def build_and_open(path: Path, folder: Path) -> Runtime:
        output = folder / f"{path.stem}-{engine}.engine"
        built = build_engine(path, output, engine=engine, batch=BatchRange(1, 1, 1))
        for warning in built.warnings:
            CONSOLE.print(f"{engine}, {path.name}: {warning}", markup=False)
        return open_runtime(built.path, engine=engine)

    return build_and_open


OPENERS: Mapping[str, Open] = {
    "tensorrt": _opener("tensorrt"),
    "tensorrt-rtx": _opener("tensorrt-rtx"),
    "onnxruntime": lambda path, _: OnnxRuntime(path, device="cuda"),
}


def main(run: Path, *, runs: int = 500, warm_up: int = 100) -> None:
    """Measure and print.

    Args:
        run: a folder of .onnx files.
        runs: counted inferences of each file.
        warm_up: inferences of each before.
    """
    files = sorted(run.glob("*.onnx"))
    if not files:
        sys.exit(f"There are no .onnx files in {run}. Give the folder of a finished `keras-qat run`.")
    with tempfile.TemporaryDirectory() as folder:
        measured = [_measure(engine, files, Path(folder), runs, warm_up) for engine in OPENERS]
    if not any(measured):
        CONSOLE.print("No engine can run on a GPU here; docs/engines.md says how to install one.")
        sys.exit(2)


def _measure(engine: str, files: list[Path], folder: Path, runs: int, warm_up: int) -> bool:
    """Time the files in one engine and print its table; say what can't run. Whether anything could."""
    reason = ADAPTERS[engine].why_not()
    if reason is not None:
        CONSOLE.print(f"{engine}: {reason}", markup=False)
        return False
    with ExitStack() as stack:
        tried = {path.name: _open(engine, path, folder) for path in files}
        opened = {name: stack.enter_context(runtime) for name, runtime in tried.items() if runtime is not None}
        if not opened:
            return False
        first = next(iter(opened.values()))
        shape = tuple(size or 1 for size in first.inputs[0].shape)
        image = np.random.default_rng(0).uniform(-1, 1, shape).astype("float32")
        latencies = measure_latency(opened, image, runs=runs, warm_up=warm_up)
        table = Table("file", "median, ms", "p90, ms", title=f"{first.engine}, {first.device}, batch 1, {runs} runs")
        for name, latency in latencies.items():
            table.add_row(name, f"{latency.median_ms:.3f}", f"{latency.p90_ms:.3f}")
        CONSOLE.print(table)
    return True


def _open(engine: str, path: Path, folder: Path) -> Runtime | None:
    """The file in the engine; `None`, and the reason printed, if it can't run there."""
    try:
        return OPENERS[engine](path, folder)
    except UserError as error:
        CONSOLE.print(f"{engine}, {path.name}: {error}", markup=False)
        return None


if __name__ == "__main__":
    cyclopts.run(main)
