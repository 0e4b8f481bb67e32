"""How long the ONNX emitter takes, and how much memory above what was in use before it.

    python benchmarks/emission.py --output emission.json

Each network runs in a process of its own, with random weights: they change neither figure. The first emission of a
process counts, imports not. Memory is the growth of the resident set to its highest (Linux's VmHWM, reset before, free
heap given back before), so it counts the arrays of Python, the buffers of protobuf and everything else alike. It is
given beside the size of the network's float weights.
"""

import ctypes
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cyclopts
from rich.console import Console
from rich.table import Table

app = cyclopts.App(help=__doc__)

NETWORKS = ("resnet50", "resnet152")
FORMS = ("float", "onnxruntime", "tensorrt")
"""Float, or the target of the INT8 file."""


@app.default
def main(*, networks: tuple[str, ...] = NETWORKS, repeats: int = 3, output: Path | None = None) -> None:
    """Measure every network in every form and print a table.

    Args:
        networks: names in the zoo.
        repeats: processes for each; the median counts.
        output: JSON file for the results.
    """
    rows = []
    for network in networks:
        for form in FORMS:
            found = sorted((_in_a_process(network, form) for _ in range(repeats)), key=lambda row: row["seconds"])
            rows.append(found[len(found) // 2])
    table = Table("network", "form", "s", "peak above, MB", "file, MB", "float weights, MB", "peak / weights")
    for row in rows:
        megabytes = (f"{row[key] / 1e6:.1f}" for key in ("peak", "file", "weights"))
        share = f"{row['peak'] / row['weights']:.2f}"
        table.add_row(row["network"], row["form"], f"{row['seconds']:.2f}", *megabytes, share)
    Console().print(table)
    if output is not None:
        output.write_text(json.dumps(rows, indent=2) + "\n")


def _in_a_process(network: str, form: str) -> dict[str, Any]:
    command = [sys.executable, __file__, "one", network, form]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)  # noqa: S603
    return dict(json.loads(done.stdout.splitlines()[-1]))


@app.command
def one(network: str, form: str) -> None:
    """Emit once and print the figures as JSON.

    Args:
        network: name in the zoo.
        form: `float` or a target.
    """
    from keras_qat import apply_placement, export_onnx, plan, trace
    from keras_qat.models import build_model, find
    from keras_qat.types import TensorRange

    entry = find(network)
    model = build_model(entry, weights=None, num_classes=1000, size=entry.preprocessing.size)
    weights = sum(4 * variable.value.shape.num_elements() for variable in model.variables)
    if form != "float":
        placement = plan(trace(model).graph, form)
        model = apply_placement(model, placement, {name: TensorRange(6.0, "given", 0) for name in placement.observed})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        ctypes.CDLL(None).malloc_trim(0)
        # Resets VmHWM: proc_pid_clear_refs(5).
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        before = _memory("VmRSS")
        start = time.perf_counter()
        export_onnx(model, path, target=None if form == "float" else form)
        seconds = time.perf_counter() - start
        peak = _memory("VmHWM") - before
        size = path.stat().st_size
    figures = {"seconds": seconds, "peak": peak, "file": size, "weights": weights}
    sys.stdout.write(json.dumps({"network": network, "form": form, **figures}) + "\n")


def _memory(field: str) -> int:
    """A field of /proc/self/status, bytes."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(f"{field}:")).split()[1])


if __name__ == "__main__":
    app()
