"""TensorRT-RTX engines of the six ResNets, built ahead of time without a GPU: float, INT8, INT8 with FP16 for the rest.

    python benchmarks/rtx_engines.py --output docs/rtx_engines.md

Random weights, which change neither size nor log; ranges that any network of that kind has. A file counts once it is
verified against its placement; a warning of the builder is printed.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

import cyclopts
import keras
from rich.console import Console

from keras_qat import apply_placement, export_onnx, plan, trace
from keras_qat.models import build_model, find
from keras_qat.runtimes import BatchRange, build_engine
from keras_qat.types import Precision, TensorRange
from keras_qat.verify import require_verified

NETWORKS = ("resnet50", "resnet101", "resnet152", "resnet50v2", "resnet101v2", "resnet152v2")
CAPABILITIES = ("8.6", "8.9")


def main(*networks: str, size: int | None = None, output: Path | None = None) -> None:
    """Build, print, and write a page.

    Args:
        networks: names in the zoo; the six ResNets if none is given.
        size: side of the input; the network's own if not given.
        output: Markdown file for the table.
    """
    lines = [
        "# TensorRT-RTX engines, built without a GPU",
        "",
        "Written by `python benchmarks/rtx_engines.py --output docs/rtx_engines.md`: batch 1 to 8, for compute",
        f"capabilities {' and '.join(CAPABILITIES)}. Warnings are those of the builder's log.",
        "",
        "| network | float, MB | INT8, MB | of float | INT8 + FP16, MB | of float | seconds | warnings |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name in networks or NETWORKS:
        lines.append(_line(name, size))
        Console(stderr=True).print(lines[-1])
    text = "\n".join(lines) + "\n"
    sys.stdout.write(text)
    if output is not None:
        output.write_text(text, encoding="utf-8")


def _line(name: str, size: int | None) -> str:
    entry = find(name)
    keras.utils.set_random_seed(0)
    model = build_model(entry, weights=None, num_classes=1000, size=size or entry.preprocessing.size)
    placement = plan(trace(model).graph, "tensorrt")
    quantized = apply_placement(model, placement, {t: TensorRange(6.0, "given", 0) for t in placement.observed})
    with tempfile.TemporaryDirectory() as folder:
        engines = [
            _build(model, Path(folder), None, "fp32"),
            _build(quantized, Path(folder), placement, "fp32"),
            _build(quantized, Path(folder), placement, "fp16"),
        ]
    megabytes = [engine.size_bytes / 1e6 for engine in engines]
    shares = [f"{100 * m / megabytes[0]:.0f}%" for m in megabytes[1:]]
    seconds = " / ".join(f"{engine.seconds:.1f}" for engine in engines)
    said = dict(zip(("float", "INT8", "INT8 + FP16"), (engine.warnings for engine in engines), strict=True))
    warnings = [f"{name}: {', '.join(sorted(set(lines)))}" for name, lines in said.items() if lines]
    return (
        f"| {name} | {megabytes[0]:.1f} | {megabytes[1]:.1f} | {shares[0]} | {megabytes[2]:.1f} | {shares[1]} "
        f"| {seconds} | {'; '.join(warnings) or 'none'} |"
    )


def _build(model: Any, folder: Path, placement: Any, precision: Precision) -> Any:
    target = None if placement is None else "tensorrt"
    path = export_onnx(model, folder / f"{target}-{precision}.onnx", target=target, precision=precision)
    if placement is not None:
        require_verified(path, placement, model=model)
    return build_engine(path, engine="tensorrt-rtx", compute_capabilities=CAPABILITIES, batch=BatchRange(max=8))


if __name__ == "__main__":
    cyclopts.run(main)
