"""What each choice of the recipe does: ResNet50 after PTQ and fine-tuned by several recipes, on any backend of Keras.

    python benchmarks/qat_recipes.py arrays IMAGE_FOLDER --output arrays.npz
    KERAS_BACKEND=jax python benchmarks/qat_recipes.py arrays.npz --weights WEIGHTS --recipes default "ema ranges"

The first prepares the images as a run does, rounded to whole pixels, and needs TensorFlow; the second doesn't, so it
runs wherever JAX finds a GPU. A recipe is chosen on the images held out of the training images (the default), never on
the validation images. Matrix products are those of full float32: TensorFloat-32 has less resolution than the rounding
that is studied here. The files are scored in ONNX Runtime.
"""

import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

import cyclopts
import numpy as np
from cyclopts import Parameter
from rows import Row, make_row, show_rows
from scores import score

os.environ.setdefault("JAX_DEFAULT_MATMUL_PRECISION", "highest")

import keras
from engines import open_onnxruntime
from image_arrays import BATCH, Batches, prepared, save_arrays

from keras_qat import Recipe, calibrate, export_onnx, fine_tune, plan, trace
from keras_qat.calibration import insert
from keras_qat.training import Distillation

_CALIBRATION, _CORRECTION = 256, 128
"""Images that choose ranges and correct biases, as in a run."""

_LABELS = {"distillation": None}

RECIPES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "default": {},
        "probabilities alone": {"distillation": Distillation(features=())},
        "labels alone": _LABELS,
        "half labels": {"distillation": Distillation(weight=0.5)},
        "batch norms training": {"batch_norm": "train"},
        "ema ranges": {"range_mode": "ema"},
        "learned ranges": {"range_mode": "learned"},
        "1e-6": {"learning_rate": 1e-6},
        "1e-5": {"learning_rate": 1e-5},
        "3e-5": {"learning_rate": 3e-5},
        "NVIDIA's": {
            **_LABELS,
            "optimizer": "sgd-momentum",
            "learning_rate": 1e-3,
            "schedule": "piecewise",
            "epochs": 10,
            "batch_size": 64,
            "batch_norm": "train",
            "monitor": "accuracy",
        },
    }
)
"""What differs from the default recipe."""

app = cyclopts.App()


@app.command
def arrays(folder: str, *, output: Path, seed: int = 0) -> None:
    """Prepare the images of a folder.

    Args:
        folder: of images, as for `keras-qat run --data`.
        output: .npz file; uint8 images and their labels, of each split.
        seed: of the split.
    """
    save_arrays(folder, output, seed)


@app.default
def main(
    data: Path,
    *,
    weights: Path,
    target: str = "tensorrt",
    recipes: Annotated[tuple[str, ...], Parameter(consume_multiple=True)] = ("default",),
    seeds: Annotated[tuple[int, ...], Parameter(consume_multiple=True)] = (0,),
    epochs: int = 1,
    batch_size: int = 16,
    weight_bits: int = 8,
    scored_on: Literal["validation", "selection"] = "selection",
    threads: int = 2,
    report: Path | None = None,
) -> None:
    """Measure and print.

    Args:
        data: the .npz file.
        weights: of ResNet50.
        target: of the files.
        recipes: names in `RECIPES`.
        seeds: of calibration and of fine-tuning.
        epochs: of recipes that don't say theirs.
        batch_size: likewise.
        weight_bits: width of the kernels' integers.
        scored_on: the images of the figures.
        threads: of ONNX Runtime.
        report: JSON file for all figures.
    """
    with np.load(data) as file:
        images = {name: file[name] for name in file.files}
    net = keras.applications.ResNet50(weights=str(weights))
    common = {"epochs": epochs, "batch_size": batch_size}
    asked = {name: Recipe(**{**common, **RECIPES[name]}) for name in recipes}
    show_rows(_rows(net, images, target, asked, seeds, weight_bits, scored_on, threads), report)


def _rows(
    net: keras.Model,
    images: Mapping[str, np.ndarray],
    target: str,
    recipes: Mapping[str, Recipe],
    seeds: tuple[int, ...],
    weight_bits: int,
    scored_on: str,
    threads: int,
) -> Iterator[Row]:
    x, labels = prepared(images[scored_on]), images[f"{scored_on}_labels"]
    exact = net.predict(x, batch_size=BATCH, verbose=0)
    names = {"model": "resnet50", "target": target}
    yield make_row(exact, exact, exact, labels, name="float", seed=None, best_epoch=None, **names)
    placement = plan(trace(net).graph, target, weight_bits=weight_bits)
    selection = Batches(
        images["selection"], images["selection_labels"], BATCH, np.arange(len(images["selection_labels"]))
    )

    def scores(quantized: keras.Model) -> np.ndarray:
        with tempfile.TemporaryDirectory() as folder:
            file = export_onnx(quantized, Path(folder) / "file.onnx", target=target)
            return score(open_onnxruntime(file, threads), x, BATCH)

    for seed in seeds:
        order = np.random.default_rng(seed).permutation(len(images["train"]))
        seen = prepared(images["train"][order[:_CALIBRATION]])
        ranges = calibrate(net, placement, seen, method="mse")
        quantized = insert(net, placement, ranges, correction=seen[:_CORRECTION]).model
        ptq = scores(quantized)
        yield make_row(exact, ptq, ptq, labels, name="PTQ", seed=seed, best_epoch=None, **names)
        for name, recipe in recipes.items():
            one = replace(recipe, seed=seed)
            tuned = fine_tune(quantized, _epochs(images, one), selection, one, teacher=net, progress=False)
            found = scores(tuned.model)
            yield make_row(exact, ptq, found, labels, name=name, seed=seed, best_epoch=tuned.best_epoch, **names)


def _epochs(images: Mapping[str, np.ndarray], recipe: Recipe) -> Any:
    x, y = images["train"], images["train_labels"]

    def of(epoch: int) -> Batches:
        order = np.random.default_rng([recipe.seed, epoch]).permutation(len(x))
        return Batches(x, y, recipe.batch_size, order)

    return of


if __name__ == "__main__":
    app()
