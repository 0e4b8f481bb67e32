"""Every classifier of `keras.applications`, and networks of KerasHub: is the file the model, and INT8 its simulation?

    python benchmarks/networks.py applications kerashub --output docs/networks.md

The weights are random and the images noise, which tells whether a file is right and nothing about accuracy;
`families.py` measures how often fourteen of these networks still give float's class. KerasHub's networks are small
configurations of theirs (`kerashub_networks.py`); `pip install keras-hub` first. What a task of KerasHub does to images
before its graph, its preprocessor, and a detector's choice of boxes behind it are no part of the file.

Each network runs in a process of its own, so that one that ends its process is a row too, and memory is given back.
"""

import inspect
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import cyclopts
from rich.console import Console

app = cyclopts.App(help=__doc__)

SUITES = ("applications", "kerashub")
TITLES = {"applications": "Classifiers of `keras.applications`", "kerashub": "KerasHub"}
_SIZES = (32, 71, 75, 96, 128, 224, 331)
"""Sides of the images that a classifier is tried with, until it takes one."""

_IMAGES = 4
_OPEN_SIZE = 64
"""Of an input of any size."""

_SECONDS = 3600


@dataclass(frozen=True)
class Row:
    """What was seen of one network and target.

    Args:
        suite: one of `SUITES`.
        network: its name there.
        target: of the INT8 file.
        shapes: of the inputs.
        parity: the float file against Keras, largest difference relative to the largest number of the output.
        pairs: Q/DQ pairs of the INT8 file.
        verified: whether its pairs and kernels are those of the placement, edge for edge.
        worst: how far a tensor of the file is from the simulation's at most, in steps, given the same integers before.
        differing: the largest share of a tensor's numbers that differ.
        miss: why the file breaks what is promised of its tensors; `None` if it doesn't.
        weighted: convolutions and products with stored weights in the file.
        integers: those of them whose kernel is int8 and whose input is quantized.
        products: products of two computed tensors, as in attention.
        integer_products: those of them that read two quantized tensors.
        refused: why there is no file; `None` if there is one.
        seconds: what it took.
    """

    suite: str
    network: str
    target: str
    shapes: str = ""
    parity: float = 0.0
    pairs: int = 0
    verified: bool = False
    worst: float = 0.0
    differing: float = 0.0
    miss: str | None = None
    weighted: int = 0
    integers: int = 0
    products: int = 0
    integer_products: int = 0
    refused: str | None = None
    seconds: float = 0.0


@app.default
def main(
    *suites: str,
    only: tuple[str, ...] = (),
    targets: tuple[str, ...] = ("onnxruntime",),
    output: Path | None = None,
    rows: Path = Path("networks.jsonl"),
) -> None:
    """Measure, print, and write a page.

    Args:
        suites: `applications`, `kerashub`; both if none is given.
        only: names of networks; all if none is given.
        targets: of the INT8 files.
        output: Markdown file for the tables.
        rows: what was measured, a line for each row. Networks that are in the file already are not measured again, so
            that an interrupted run goes on. Remove it to measure anew.
    """
    done = [Row(**json.loads(line)) for line in rows.read_text(encoding="utf-8").splitlines()] if rows.exists() else []
    known = {(row.suite, row.network, row.target) for row in done}
    for suite in suites or SUITES:
        for name in _networks(suite):
            wanted = [target for target in targets if (suite, name, target) not in known]
            if not wanted or (only and name not in only):
                continue
            new = _in_a_process(suite, name, wanted)
            done += new
            with rows.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(asdict(row)) + "\n" for row in new)
    order = {(suite, name): place for suite in suites or SUITES for place, name in enumerate(_networks(suite))}
    text = _page(sorted(done, key=lambda row: order.get((row.suite, row.network), -1)))
    sys.stdout.write(text)
    if output is not None:
        output.write_text(text, encoding="utf-8")


def _in_a_process(suite: str, name: str, targets: list[str]) -> list[Row]:
    start = time.perf_counter()
    command = [sys.executable, __file__, "one", suite, name, *targets]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_SECONDS)  # noqa: S603
        lines, code, errors = ended.stdout.splitlines(), ended.returncode, ended.stderr
    except subprocess.TimeoutExpired:
        lines, code, errors = [], 1, f"it took more than {_SECONDS} s"
    rows = [Row(**json.loads(line)) for line in lines if line.startswith('{"suite"')]
    if code:
        why = f"The process ended with code {code}: {(errors.strip().splitlines() or [''])[-1]}"
        rows += [Row(suite, name, target, refused=why) for target in targets[len(rows) :]]
    Console(stderr=True).print(f"{name}: {time.perf_counter() - start:.0f} s, {[row.refused or 'ok' for row in rows]}")
    return rows


@app.command
def one(suite: str, name: str, *targets: str) -> None:
    """Measure one network and print its rows as JSON.

    Args:
        suite: one of `SUITES`.
        name: of the network.
        targets: of the INT8 files.
    """
    for row in _measure(suite, name, targets):
        sys.stdout.write(json.dumps(asdict(row)) + "\n")
        sys.stdout.flush()


def _networks(suite: str) -> Mapping[str, Callable[[], Any]]:
    """The builder of each network of a suite, by name."""
    if suite == "kerashub":
        import kerashub_networks

        return kerashub_networks.NETWORKS
    import keras

    functions = {name: getattr(keras.applications, name) for name in dir(keras.applications)}
    return {
        name: lambda build=build: _smallest(build)
        for name, build in functions.items()
        if inspect.isfunction(build) and {"weights", "classes"} <= set(inspect.signature(build).parameters)
    }


def _smallest(build: Callable[..., Any]) -> Any:
    """The classifier for the smallest images that it takes, before its softmax."""
    return next(model for size in _SIZES if (model := _of_size(build, size)) is not None)


def _of_size(build: Callable[..., Any], size: int) -> Any:
    try:
        return build(weights=None, input_shape=(size, size, 3), classes=10, classifier_activation=None)
    except ValueError:  # the image is too small
        return None


def _measure(suite: str, name: str, targets: tuple[str, ...]) -> Iterator[Row]:
    import keras
    import numpy as np

    from keras_qat import apply_placement, calibrate, export_onnx, plan, trace
    from keras_qat.errors import KerasQATError
    from keras_qat.verify import tensor_errors, tensor_miss, verify_file

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.run_functions_eagerly(True)  # each function runs once or twice, and compiling it takes longer
    model = _networks(suite)[name]()
    _draw_weights(model)
    images = _noise(model, np.random.default_rng(0))
    shapes = ", ".join("×".join(map(str, x.shape[1:])) for x in images)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        try:
            parity = _parity(model, images, Path(folder))
            graph = trace(model).graph
        except KerasQATError as error:
            yield from (Row(suite, name, target, shapes, refused=str(error)) for target in targets)
            return
        for target in targets:
            path = Path(folder) / f"{target}.onnx"
            batch = images if len(images) > 1 else images[0]
            try:
                placement = plan(graph, target)
                quantized = apply_placement(model, placement, calibrate(model, placement, [(batch, None)]))
                export_onnx(quantized, path, target=target)
                errors = tensor_errors(quantized, path, [(batch, None)])
            except KerasQATError as error:
                yield Row(suite, name, target, shapes, parity, refused=str(error))
                continue
            yield Row(
                suite,
                name,
                target,
                shapes,
                parity,
                pairs=len(placement.tensors),
                verified=verify_file(path, placement, model=quantized).ok,
                worst=max(error.worst for error in errors),
                differing=max(error.differing for error in errors),
                miss=tensor_miss(name, errors),
                **_counts(path),
                seconds=time.perf_counter() - start,
            )
            start = time.perf_counter()


def _parity(model: Any, images: list[Any], folder: Path) -> float:
    """The largest difference of the float file's outputs from Keras's, relative to the largest number of each."""
    import keras
    import numpy as np

    from keras_qat import export_onnx
    from keras_qat.runtimes import OnnxRuntime

    # Not `predict`, in which detectors choose among their boxes.
    expected = keras.tree.flatten(model(images if len(images) > 1 else images[0], training=False))
    with OnnxRuntime(export_onnx(model, folder / "float.onnx")) as deployed:
        found = deployed.run(*images)
    shares = [
        np.abs(a.astype(np.float64) - b).max() / np.abs(b).max().clip(1e-30)
        for a, b in zip(found, map(keras.ops.convert_to_numpy, expected), strict=True)
    ]
    return float(max(shares))


def _counts(path: Path) -> Mapping[str, int]:
    """How many weighted operations and products of a file compute in integers."""
    from keras_qat.onnx import is_constant, pair_above, read_onnx_file

    file = read_onnx_file(path)
    weighted = [op for op in file.operations if op.weighted and op.kernel is not None]
    operands = [[value for value in node.inputs if value is not None] for node in file.nodes("MatMul", "Einsum")]
    products = [values for values in operands if not any(map(is_constant, values))]
    return {
        "weighted": len(weighted),
        "integers": sum(op.quantized for op in weighted),
        "products": len(products),
        "integer_products": sum(all(map(pair_above, values)) for values in products),
    }


_DRAWN: tuple[tuple[str, float, float], ...] = (
    ("variance", 1.0, 0.3),
    ("gamma", 0.8, 0.1),
    ("scale", 0.8, 0.1),
    ("mean", 0.0, 0.1),
    ("beta", 0.0, 0.1),
    ("bias", 0.0, 0.1),
)
"""(part of a weight's name, mean, deviation): what Keras starts at 0 or 1 would hide a channel that is mixed up."""


def _draw_weights(model: Any) -> None:
    """Give each weight random numbers, in place: kernels by He et al. 2015, so that no signal vanishes."""
    import keras
    import numpy as np

    rng = np.random.default_rng(0)
    for layer in model._flatten_layers(include_self=False, recursive=True):  # noqa: SLF001
        for weight in layer._trainable_variables + layer._non_trainable_variables:  # noqa: SLF001
            drawn = next((row for row in _DRAWN if row[0] in weight.name), None)
            if not keras.backend.is_float_dtype(weight.dtype):
                continue
            if drawn is not None:
                numbers = rng.normal(drawn[1], drawn[2], weight.shape)
                weight.assign(np.abs(numbers) if drawn[1] else numbers)
            elif "kernel" in weight.name and len(weight.shape) > 1:
                depthwise = "depthwise" in weight.name or "Depthwise" in type(layer).__name__
                fan_in = np.prod(weight.shape[: -2 if depthwise else -1])
                weight.assign(rng.normal(0, np.sqrt(2 / fan_in), weight.shape))


def _noise(model: Any, rng: Any) -> list[Any]:
    """Random numbers for each input: whole pixels of 0 to 255 if the network scales them itself."""
    import keras
    import numpy as np

    scales = any(isinstance(layer, keras.layers.Rescaling | keras.layers.Normalization) for layer in model.layers[:4])
    shapes = [(_IMAGES, *(size or _OPEN_SIZE for size in tensor.shape[1:])) for tensor in model.inputs]
    return [
        np.asarray(rng.integers(0, 256, shape) if scales else rng.normal(size=shape), np.float32) for shape in shapes
    ]


def _page(rows: list[Row]) -> str:
    from keras_qat.machine import read_environment

    environment = read_environment()
    versions = ", ".join(f"{k} {v}" for k, v in environment.packages.items() if k in {"keras", "onnxruntime"})
    lines = [
        "# Networks",
        "",
        "Written by `python benchmarks/networks.py --output docs/networks.md`: random weights, noise for images, small",
        f"inputs; {environment.cpu}, {versions}. Accuracy is measured elsewhere: [families](families.md).",
        "",
        "- Float: the float file against Keras, largest difference relative to the largest number of the output.",
        "- Verified: the file's Q/DQ pairs and int8 kernels are the placement's, edge for edge.",
        "- Tensor by tensor: given the same integers before it, how far a tensor of the file is from the simulation at",
        "  most, and on which share of its numbers. **Bold** where that breaks the limits at which a run fails.",
        "- In integers: how many of the convolutions and products with stored weights have int8 weights and a",
        "  quantized input; then how many of the products of two tensors, as in attention, read two quantized ones.",
    ]
    for suite in dict.fromkeys(row.suite for row in rows):
        lines += ["", f"## {TITLES[suite]}", ""]
        if suite == "kerashub":
            lines += [
                "Small configurations. A task's own preprocessor, and a detector's choice of boxes in `predict`, are",
                "no part of the file.",
                "",
            ]
        lines += [
            "| network | input | float | target | pairs | verified | tensor by tensor | in integers | of two tensors |",
            "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        ]
        lines += [_line(row) for row in rows if row.suite == suite]
    return "\n".join(lines) + "\n"


def _line(row: Row) -> str:
    beginning = f"| {row.network} | {row.shapes} | {row.parity:.0e} | {row.target} |"
    if row.refused is not None:
        return f"{beginning.replace('0e+00', '–')} refused: {' '.join(row.refused.split()).replace('|', '/')} | | | | |"
    step = f"{row.worst:.3g} step, {100 * row.differing:.2g}%"
    step = step if row.miss is None else f"**{step}**"
    products = f"{row.integer_products} of {row.products}" if row.products else "–"
    verified = "yes" if row.verified else "**no**"
    return f"{beginning} {row.pairs} | {verified} | {step} | {row.integers} of {row.weighted} | {products} |"


if __name__ == "__main__":
    cast("Callable[[], None]", app)()
