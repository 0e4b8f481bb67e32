"""Every family of `keras.applications`, with random weights: is the file the model, and the INT8 file its simulation?

    python benchmarks/families.py --output docs/families.md

Random weights alone classify nothing: all images end at nearly the same scores, and a tie may fall either way. So the
images are of ten classes that even a random network tells apart (gratings, each class with two colours, an angle and a
period of its own; phase, contrast and noise are drawn for each image), and the classifier is solved by least squares on
the features. Weights are drawn so that no signal vanishes, and batch norms are as Keras makes them: with the statistics
of the images they would remove, layer by layer, what the images have in common and amplify the rest, rounding included,
which no trained network does. Thin networks are trained for some steps instead. Calibration and agreement are on
different images, agreement in the engine that the file is for (TensorRT's in ONNX Runtime).
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cyclopts
import keras
import numpy as np
from rich.console import Console

from keras_qat import apply_placement, calibrate, export_onnx, plan, trace
from keras_qat.evaluation import predict
from keras_qat.machine import read_environment
from keras_qat.placement import WEIGHTED
from keras_qat.runtimes import KerasRuntime, OnnxRuntime, choose_judge
from keras_qat.verify import tensor_errors, verify_file

TARGETS = ("onnxruntime", "openvino", "tensorrt")
SEED = 0
CLASSES = 10
_FITTED = 600
_COMPARED = 8
_BATCH = 50
_RIDGE = 1e-2
_STEPS = 180


@dataclass(frozen=True)
class Family:
    """One network of a family.

    Args:
        build: of `keras.applications`.
        size: side of the input.
        raw: whether the network scales pixels of 0 to 255 itself.
        steps: of training, for networks that hardly tell the classes apart by random weights: through many thin layers,
            gates near 0.5 and swish all images end at nearly the same features, nearer than rounding to eight bits.
        crashes: a target whose own engine ends the process when it compiles the file.
    """

    build: Callable[..., Any]
    size: int
    raw: bool = False
    steps: int = 0
    crashes: str | None = None


FAMILIES = (
    Family(keras.applications.ResNet50, 64),
    Family(keras.applications.ResNet50V2, 64),
    Family(keras.applications.MobileNet, 64),
    Family(keras.applications.MobileNetV2, 64, steps=_STEPS),
    Family(keras.applications.MobileNetV3Small, 64, raw=True, steps=_STEPS),
    Family(keras.applications.EfficientNetB0, 64, raw=True, steps=_STEPS),
    Family(keras.applications.EfficientNetV2B0, 64, raw=True, steps=_STEPS),
    Family(keras.applications.DenseNet121, 64),
    Family(keras.applications.InceptionV3, 75),
    Family(keras.applications.InceptionResNetV2, 75),
    Family(keras.applications.Xception, 71),
    Family(keras.applications.NASNetMobile, 64, crashes="openvino"),
    Family(keras.applications.VGG16, 64),
    Family(keras.applications.ConvNeXtTiny, 64, raw=True),
)


@dataclass(frozen=True)
class Row:
    """What was seen of one network and target."""

    network: str
    parity: float
    target: str
    pairs: int
    verified: bool
    worst: float
    differing: float
    agreement: float
    against_float: float
    top1: float
    megabytes: float


def main(
    *names: str,
    images: int = 200,
    calibration_images: int = 128,
    output: Path | None = None,
    rows: Path = Path("families.jsonl"),
) -> None:
    """Measure, print, and write a page.

    Args:
        names: networks as `keras.applications` calls them; all if none is given.
        images: validation images for agreement.
        calibration_images: training images for the ranges.
        output: Markdown file for the table.
        rows: what was measured, a line for each row. It takes a quarter of an hour in all; networks that are in the
            file already are not measured again, so an interrupted run goes on. Remove it to measure anew.
    """
    done = [Row(**json.loads(line)) for line in rows.read_text(encoding="utf-8").splitlines()] if rows.exists() else []
    for family in FAMILIES:
        wanted = not names or family.build.__name__ in names
        if wanted and family.build.__name__ not in {row.network for row in done}:
            new = list(_measure(family, images, calibration_images))
            keras.backend.clear_session()
            with rows.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(asdict(row)) + "\n" for row in new)
            done += new
    order = [family.build.__name__ for family in FAMILIES]
    text = _page(sorted(done, key=lambda row: order.index(row.network)), images, calibration_images)
    sys.stdout.write(text)
    if output is not None:
        output.write_text(text, encoding="utf-8")


def _measure(family: Family, images: int, calibration_images: int) -> Iterator[Row]:
    start = time.perf_counter()
    rng = np.random.default_rng(SEED)
    model = _classifier(family, *_gratings(rng, _FITTED, family))
    chosen = np.split(_gratings(rng, calibration_images, family)[0], range(_BATCH, calibration_images, _BATCH))
    x, labels = _gratings(rng, images, family)
    batches = [(x[i : i + _BATCH], labels[i : i + _BATCH]) for i in range(0, len(x), _BATCH)]
    with tempfile.TemporaryDirectory() as name, KerasRuntime(model) as in_keras:
        folder = Path(name)
        baseline = predict(in_keras, batches)
        with OnnxRuntime(export_onnx(model, folder / "float.onnx")) as deployed:
            scores, expected = deployed.run(x)[0], model.predict(x, batch_size=_BATCH, verbose=0)
        parity = float(np.abs(scores - expected).max() / np.abs(expected).max())
        for target in TARGETS:
            placement = plan(trace(model).graph, target)
            quantized = apply_placement(model, placement, calibrate(model, placement, chosen))
            path = export_onnx(quantized, folder / f"{target}.onnx", target=target)
            errors = tensor_errors(quantized, path, [(x[:_COMPARED], None)])
            simulated = predict(KerasRuntime(quantized), batches)
            with choose_judge("onnxruntime" if target == family.crashes else target).open(
                path, max_batch=_BATCH
            ) as engine:
                file = predict(engine, batches)
            yield Row(
                network=family.build.__name__,
                parity=parity,
                target=target,
                pairs=len(placement.tensors),
                verified=verify_file(path, placement, model=quantized).ok,
                worst=max(e.worst for e in errors),
                differing=max(e.differing for e in errors),
                agreement=file.agreement(simulated),
                against_float=file.agreement(baseline),
                top1=file.accuracy(1),
                megabytes=path.stat().st_size / 1e6,
            )
    Console(stderr=True).print(f"{family.build.__name__}: {time.perf_counter() - start:.0f} s")


def _gratings(rng: np.random.Generator, count: int, family: Family) -> tuple[np.ndarray, np.ndarray]:
    """Images, float32 (count, size, size, 3), and their classes, int (count,)."""
    fixed = np.random.default_rng(SEED)
    colours = fixed.uniform(-1, 1, (CLASSES, 2, 3))
    angles, periods = fixed.permutation(CLASSES) * np.pi / CLASSES, fixed.uniform(4, 16, CLASSES)
    y = rng.integers(0, CLASSES, count)
    row, column = np.mgrid[: family.size, : family.size]
    across = np.cos(angles[y])[:, None, None] * row + np.sin(angles[y])[:, None, None] * column
    wave = np.sin(2 * np.pi * across / periods[y][:, None, None] + rng.uniform(0, 2 * np.pi, count)[:, None, None])
    share = (0.5 + 0.5 * wave * rng.uniform(0.7, 1, count)[:, None, None])[..., None]
    a, b = (colours[y, i][:, None, None, :] for i in range(2))
    x = np.clip(share * a + (1 - share) * b + rng.normal(0, 0.05, (count, family.size, family.size, 3)), -1, 1)
    return np.asarray((x + 1) * 127.5 if family.raw else x, np.float32), y


def _initialize(model: Any) -> None:
    """Give every kernel of `model` normal weights of variance 2 / fan-in (He et al. 2015), in place.

    Keras's own start lets the signal of depthwise convolutions vanish: for them it counts all channels as inputs.
    """
    rng = np.random.default_rng(SEED)
    for layer in model.layers:
        for weight in layer.trainable_weights:
            if "kernel" in weight.name:
                depthwise = "depthwise" in weight.name or isinstance(layer, keras.layers.DepthwiseConv2D)
                fan_in = np.prod(weight.shape[:2] if depthwise else weight.shape[:-1])
                weight.assign(rng.normal(0, np.sqrt(2 / fan_in), weight.shape))


def _classifier(family: Family, x: np.ndarray, y: np.ndarray) -> Any:
    """Random weights, and a classifier by ridge regression on the last features; or a few steps of training."""
    keras.utils.set_random_seed(SEED)
    model = family.build(weights=None, input_shape=(family.size, family.size, 3), classes=CLASSES)
    if family.steps:
        return _train(model, x, y, family.steps)
    _initialize(model)
    graph = trace(model).graph
    last = model.get_layer(next(node.layer for node in reversed(graph.nodes) if node.kind in WEIGHTED))
    features = keras.Model(model.input, last.input).predict(x, batch_size=_BATCH, verbose=0).reshape(len(x), -1)
    mean, spread = features.mean(axis=0), features.std(axis=0).mean()
    f = (features - mean) / spread
    wanted = np.eye(CLASSES)[y] - 1 / CLASSES
    solved = np.linalg.solve(f.T @ f + _RIDGE * len(f) * np.eye(f.shape[1]), f.T @ wanted) * CLASSES / spread
    last.kernel.assign(solved.reshape(last.kernel.shape))
    last.bias.assign(-mean @ solved)
    return model


def _train(model: Any, x: np.ndarray, y: np.ndarray, steps: int) -> Any:
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.9  # Keras's own 0.99 would know little of the images after so few steps.
    model.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy")
    model.fit(x, y, batch_size=_BATCH, epochs=steps * _BATCH // len(x), verbose=0)
    return model


def _page(rows: list[Row], images: int, calibration_images: int) -> str:
    environment = read_environment()
    versions = ", ".join(f"{k} {v}" for k, v in environment.packages.items() if k in {"keras", "onnxruntime"})
    lines = [
        "# The families of `keras.applications`",
        "",
        "Written by `python benchmarks/families.py --output docs/families.md`: random weights, and a classifier solved",
        "by least squares for gratings of ten classes. Networks with a star hardly tell the classes apart by random",
        f"weights, so that a tie may fall either way: they were trained for {_STEPS} steps.",
        f"Calibrated on {calibration_images} images, compared on {images} others; {environment.cpu}, {versions}.",
        "",
        "- Float: the float file against Keras, largest difference relative to the largest score.",
        "- Verified: the file's Q/DQ pairs and int8 kernels are the placement's, edge for edge.",
        "- Tensor by tensor: given the same integers before it, how far a tensor of the file is from the simulation at",
        "  most, and on which share of its numbers.",
        "- Simulation, float: share of images to which the INT8 file gives the same class, in the engine that it is",
        "  for (TensorRT's in ONNX Runtime). OpenVINO 2026.4 crashes when it compiles NASNet's file for it, though not",
        "  the one for TensorRT: that row is ONNX Runtime's, too.",
        "",
        "| network | float | target | pairs | verified | tensor by tensor | simulation | float | top-1 | MB |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    stars = {family.build.__name__: " *" if family.steps else "" for family in FAMILIES}
    lines += [
        f"| {row.network}{stars[row.network]} | {row.parity:.0e} | {row.target} | {row.pairs} "
        f"| {'yes' if row.verified else '**no**'} "
        f"| {row.worst:.3g} step, {100 * row.differing:.2g}% | {100 * row.agreement:.1f}% "
        f"| {100 * row.against_float:.1f}% | {100 * row.top1:.1f}% | {row.megabytes:.1f} |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    cyclopts.run(main)
