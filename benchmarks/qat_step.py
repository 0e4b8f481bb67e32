"""What a step of quantization-aware training costs beside a step of float training of the same model.

    python benchmarks/qat_step.py --output qat_step.json
    python benchmarks/qat_step.py --backends jax

Same network, images, optimizer and mode of batch norms; only the fake quantization differs. Time: in one process for
each backend and compiler, a step of each in turn; what counts is the ratio of the medians, of the better compiler each.
Memory: a process for each, since a process never gives its peak back; on a GPU under JAX that of the GPU. JAX needs no
TensorFlow here.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import cyclopts
import numpy as np
from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

JIT = {"tensorflow": (False, True), "jax": (True,)}
"""Whether XLA compiles the step; JAX's always is."""

VARIANTS = ("float", "qat", "qat learned", "qat distilled")
_WARM_UP = 2
_SEED = 0

app = cyclopts.App()


@dataclass(frozen=True)
class Setup:
    """One network and how it trains.

    Args:
        model: name in `keras.applications`.
        target: what the Q/DQ pairs are for.
        size: of the images.
        batch: images of a step.
        batch_norm: freeze or train.
        rounds: steps of each variant that count.
    """

    model: str = "ResNet50"
    target: str = "tensorrt"
    size: int = 224
    batch: int = 16
    batch_norm: str = "freeze"
    rounds: int = 8


@app.default
def main(
    setup: Annotated[Setup, Parameter(name="*")] | None = None,
    *,
    backends: Annotated[tuple[str, ...], Parameter(consume_multiple=True)] = ("tensorflow", "jax"),
    batch_norms: Annotated[tuple[str, ...], Parameter(consume_multiple=True)] = ("freeze", "train"),
    variants: Annotated[tuple[str, ...], Parameter(consume_multiple=True)] = VARIANTS,
    output: Path | None = None,
) -> None:
    """Measure and print.

    Args:
        setup: what to train.
        backends: of Keras.
        batch_norms: modes to measure.
        variants: what to train, float first.
        output: JSON file for all figures.
    """
    setup = setup or Setup()
    rows: list[dict[str, Any]] = []
    console = Console(width=120, stderr=True)
    for backend in backends:
        for mode in batch_norms:
            one = {**asdict(setup), "batch_norm": mode}
            for jit in JIT[backend]:
                times = _child(backend, "times", one, jit=jit, variants=variants)
                for variant in variants:
                    peak = None
                    if variant in ("float", "qat"):
                        peak = _child(backend, "peak", one, jit=jit, variants=(variant,))
                    rows.append(
                        {
                            "backend": backend,
                            "batch_norm": mode,
                            "jit": jit,
                            "variant": variant,
                            "seconds": times and times[variant],
                            "peak_mb": peak and peak["mb"],
                        }
                    )
                    console.print(rows[-1])
    if output is not None:
        output.write_text(json.dumps(rows, indent=2), encoding="utf-8")
    _print(rows)


def _print(rows: list[dict[str, Any]]) -> None:
    """The best compiler's step of each variant, and its ratio to float's best."""
    table = Table("backend", "batch norms", "variant", "s a step", "over float", "peak, MB", "over float")
    for backend, mode in dict.fromkeys((row["backend"], row["batch_norm"]) for row in rows):
        best: dict[str, dict[str, Any]] = {}
        for row in rows:
            if (row["backend"], row["batch_norm"]) != (backend, mode) or row["seconds"] is None:
                continue
            if row["variant"] not in best or row["seconds"] < best[row["variant"]]["seconds"]:
                best[row["variant"]] = row
        base = best.get("float")
        for variant, row in best.items():
            ratio = f"{row['seconds'] / base['seconds']:.2f}" if base else "–"
            peak = row["peak_mb"]
            memory = f"{peak / base['peak_mb']:.2f}" if base and peak and base["peak_mb"] else "–"
            name = variant + (" (XLA)" if row["jit"] else "")
            table.add_row(backend, mode, name, f"{row['seconds']:.3f}", ratio, f"{peak or 0:.0f}", memory)
    Console(width=120).print(table)


def _child(
    backend: str, command: str, setup: Mapping[str, Any], *, jit: bool, variants: Iterable[str]
) -> dict[str, Any] | None:
    """What a process of its own measured; `None` if it failed, and its error is shown."""
    order = json.dumps({"setup": setup, "jit": jit, "variants": list(variants)})
    environment = {**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(  # noqa: S603
        [sys.executable, __file__, command, order], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        Console(stderr=True).print(f"{backend} {command} {order} failed: {done.stderr[-500:]}", markup=False)
        return None
    return dict(json.loads(done.stdout.splitlines()[-1]))


@app.command(show=False)
def times(order: str) -> None:
    """Median seconds of a step, of each variant in turn, as JSON."""
    setup, jit, variants = _read(order)
    x, y = _batch(setup)
    steps = _trainers(setup, variants, jit=jit)
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for round_ in range(_WARM_UP + setup.rounds):
        for name, trainer in steps.items():
            start = time.perf_counter()
            trainer.train_on_batch(x, y)
            if round_ >= _WARM_UP:
                taken[name].append(time.perf_counter() - start)
    print(json.dumps({name: statistics.median(seconds) for name, seconds in taken.items()}))


@app.command(show=False)
def peak(order: str) -> None:
    """The peak of this process' memory over a few steps, as JSON."""
    setup, jit, variants = _read(order)
    x, y = _batch(setup)
    for trainer in _trainers(setup, variants, jit=jit).values():
        for _ in range(_WARM_UP + 1):
            trainer.train_on_batch(x, y)
    print(json.dumps({"mb": _peak_mb(backend=os.environ["KERAS_BACKEND"])}))


def _peak_mb(backend: str) -> float:
    """The peak of the GPU's memory where JAX runs on one, else of this process' memory."""
    if backend == "jax":
        import jax

        device = jax.local_devices()[0]
        if device.platform == "gpu":
            return float(device.memory_stats()["peak_bytes_in_use"]) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _read(order: str) -> tuple[Setup, bool, list[str]]:
    value = json.loads(order)
    return Setup(**value["setup"]), value["jit"], value["variants"]


def _batch(setup: Setup) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(_SEED)
    images = rng.normal(0, 50, (setup.batch, setup.size, setup.size, 3)).astype("float32")
    return images, rng.integers(0, 1000, setup.batch)


def _trainers(setup: Setup, variants: list[str], *, jit: bool) -> dict[str, Any]:
    """Compiled models by variant; the float model is the teacher."""
    import keras

    from keras_qat import apply_placement, calibrate, plan, trace
    from keras_qat.training import Distillation, Distiller, freeze_batch_norms, make_optimizer

    keras.utils.set_random_seed(_SEED)
    net = getattr(keras.applications, setup.model)(weights=None, input_shape=(setup.size, setup.size, 3))
    placement = plan(trace(net).graph, setup.target)
    ranges = None
    made = {}
    for variant in variants:
        model = net
        if variant != "float":
            ranges = ranges or calibrate(net, placement, _batch(setup)[0][:4], method="minmax")
            model = apply_placement(
                net, placement, ranges, range_mode="learned" if variant == "qat learned" else "fixed"
            )
        if setup.batch_norm == "freeze":
            freeze_batch_norms(model)
        trainer = Distiller(model, net, Distillation()) if variant == "qat distilled" else model
        trainer.compile(make_optimizer("sgd-momentum", 1e-5), "sparse_categorical_crossentropy", jit_compile=jit)
        made[variant] = trainer
    return made


if __name__ == "__main__":
    app()
