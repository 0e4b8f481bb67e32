"""What fine-tuning gains over post-training quantization: float, PTQ and QAT, from several seeds, in the engine.

    python benchmarks/qat_accuracy.py --weights WEIGHTS --data IMAGE_FOLDER --targets onnxruntime tensorrt
    python benchmarks/qat_accuracy.py --weights WEIGHTS --data IMAGE_FOLDER --targets tensorrt --weight-bits 4
    python benchmarks/qat_accuracy.py --models resnet50 resnet101 --data digits

Everything is what `keras-qat run` does, and every other option is one of its own (`--epochs`, `--learning-rate`, …). A
seed chooses the images that calibrate, then the order of those that train: agreement is luck for PTQ as well. The
validation images are looked at once, at the end; to choose a recipe, `--scored-on selection` scores the images that a
run holds out of its training images, and the validation images stay unseen. Agreement moves in steps of one image and
its noise on 500 images is about half a point; the Kullback-Leibler divergence from float's probabilities and the SQNR
of the logits are finer, and the divergence is compared image by image.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import cyclopts
import numpy as np
from cyclopts import Parameter
from rows import Row, make_row, show_rows
from scores import OPEN, score

from keras_qat import Overrides, export_onnx, plan, trace
from keras_qat.run import Settings, open_start, quantize_after_training, train_quantized

_BATCH = 20


def main(
    settings: Annotated[Settings, Parameter(name="*")] | None = None,
    *,
    models: Annotated[tuple[str, ...], Parameter(consume_multiple=True)] = ("resnet50",),
    targets: Annotated[tuple[str, ...], Parameter(consume_multiple=True)] = ("onnxruntime",),
    seeds: Annotated[tuple[int, ...], Parameter(consume_multiple=True)] = (0, 1, 2),
    weight_bits: int = 8,
    scored_on: Literal["validation", "selection"] = "validation",
    threads: int = 2,
    report: Path | None = None,
) -> None:
    """Measure and print.

    Args:
        settings: of each run; all but `output`, for nothing is kept.
        models: of the zoo, one after the other.
        targets: of the files.
        seeds: of calibration and fine-tuning; the split of the data and a trained baseline are those of the settings.
        weight_bits: width of the kernels' integers.
        scored_on: the images of the figures.
        threads: of an engine.
        report: JSON file for all figures.
    """
    settings = settings or Settings()
    with tempfile.TemporaryDirectory() as folder:
        each = (replace(settings, model=model, output=Path(folder)) for model in models)
        rows = (row for one in each for row in _rows(one, targets, seeds, weight_bits, scored_on, threads))
        show_rows(rows, report)


def _rows(
    settings: Settings,
    targets: tuple[str, ...],
    seeds: tuple[int, ...],
    weight_bits: int,
    scored_on: Literal["validation", "selection"],
    threads: int,
) -> Iterator[Row]:
    start = open_start(settings)
    net, data = start.model, start.data
    images = data.selection if scored_on == "selection" else data.validation
    if settings.validation_images is not None:
        images = images.take(settings.validation_images, 0)
    x, labels = (np.concatenate(part) for part in zip(*images.arrays(_BATCH), strict=True))
    overrides = None if settings.overrides is None else Overrides.load(settings.overrides)
    exact = net.predict(x, batch_size=_BATCH, verbose=0)

    def scores(model: Any, target: str) -> np.ndarray:
        options = {"target": target, "opset": settings.export.opset, "precision": settings.export.precision}
        file = export_onnx(model, settings.folder / "file.onnx", **options)
        return score(OPEN[target](file, threads), x, _BATCH)

    def row(found: np.ndarray, ptq: np.ndarray, **names: Any) -> Row:
        return make_row(exact, ptq, found, labels, model=settings.model, **names)

    yield row(exact, exact, target="", name="float", seed=None, best_epoch=None)
    for target in targets:
        placement = plan(trace(net).graph, target, weight_bits=weight_bits, overrides=overrides)
        for seed in seeds:
            with tempfile.TemporaryDirectory() as folder:
                one = replace(settings, target=target, seed=seed, output=Path(folder))
                quantized = quantize_after_training(net, placement, data.train, one)
                ptq = scores(quantized, target)
                yield row(ptq, ptq, target=target, name="PTQ", seed=seed, best_epoch=None)
                tuned = train_quantized(quantized, net, data, one)
            found = scores(tuned.model, target)
            yield row(found, ptq, target=target, name="QAT", seed=seed, best_epoch=tuned.best_epoch)


if __name__ == "__main__":
    cyclopts.run(main)
