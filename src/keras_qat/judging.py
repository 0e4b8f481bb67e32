"""Float, PTQ and QAT side by side: accuracy, latency and agreement, in Keras and in the engine that runs the files."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from keras_qat.data import ImageSet
from keras_qat.evaluation import Predictions, TensorError, measure_latency, predict, tensor_errors
from keras_qat.report import Row
from keras_qat.runtimes import KerasRuntime, Runtime, choose_judge
from keras_qat.types import ScoreMeaning

BASELINE = "Baseline"
"""The variant that the others are compared with."""

EVALUATION_BATCH = 32

_COMPARED_IMAGES = 32
_COMPARED_BATCH = 8
"""Tensor by tensor, all activations of a batch are held at once: some 300 MB for eight images of a ResNet152."""


def judge_variants(
    models: Mapping[str, Any],
    files: Mapping[str, Path],
    images: ImageSet,
    target: str,
    *,
    embedded: bool = False,
    meaning: ScoreMeaning = "classes",
) -> tuple[tuple[Row, ...], str]:
    """Evaluate and time every variant in Keras and deployed, on the same images.

    Args:
        models: the Keras models by the name of their row; `BASELINE` may be among them.
        files: the ONNX file of each.
        images: with labels; whole pixels if `embedded`.
        target: which the files are for; it decides which engine runs them.
        embedded: the files read pixels and normalize them themselves.
        meaning: of the scores that all of them write.

    Returns:
        A row for each variant, and the name of the engine, with why no better one.
    """
    judge = choose_judge(target)
    fed = _fed(images) if embedded else images
    normalize = images.preprocessing.normalize if embedded else None
    with ExitStack() as stack:
        simulated = {name: stack.enter_context(KerasRuntime(model)) for name, model in models.items()}
        deployed = {name: stack.enter_context(judge.open(files[name], max_batch=EVALUATION_BATCH)) for name in models}

        in_keras = {name: _scores(runtime, images, f"{name} in Keras", meaning) for name, runtime in simulated.items()}
        in_engine = {name: _scores(runtime, fed, f"{name} deployed", meaning) for name, runtime in deployed.items()}
        errors = {
            name: _tensor_errors(models[name], files[name], fed, normalize) for name in models if name != BASELINE
        }
        keras_latency = measure_latency(simulated, _first(images))
        engine_latency = measure_latency(deployed, _first(fed))
        engine = next(iter(deployed.values()))
        rows = tuple(
            Row(
                name=name,
                keras_top1=in_keras[name].accuracy(1),
                keras_top5=in_keras[name].accuracy(5),
                keras_latency=keras_latency[name],
                deployed_top1=in_engine[name].accuracy(1),
                deployed_top5=in_engine[name].accuracy(5),
                deployed_latency=engine_latency[name],
                agreement=in_engine[name].agreement(in_keras[BASELINE]) if BASELINE in in_keras else None,
                simulation_agreement=in_engine[name].agreement(in_keras[name]),
                simulation_sqnr=in_engine[name].sqnr(in_keras[name]),
                keras_agreement=in_keras[name].agreement(in_keras[BASELINE]) if BASELINE in in_keras else None,
                tensor_errors=errors.get(name, ()),
                size_bytes=files[name].stat().st_size,
            )
            for name in models
        )
        return rows, judge.describe(engine)


def _fed(images: ImageSet) -> ImageSet:
    """The images as files with embedded preprocessing read them: the same pixels, not normalized."""
    return replace(images, preprocessing=images.preprocessing.raw())


def _scores(runtime: Runtime, images: ImageSet, name: str, meaning: ScoreMeaning) -> Predictions:
    batches, total = images.arrays(EVALUATION_BATCH), images.steps(EVALUATION_BATCH)
    return predict(runtime, batches, description=f"evaluating {name}", total=total, meaning=meaning)


def _first(images: ImageSet) -> np.ndarray:
    image, _ = next(images.arrays(1))
    return image


def _tensor_errors(
    model: Any, file: Path, images: ImageSet, normalize: Callable[[Any], Any] | None
) -> tuple[TensorError, ...]:
    few = images.take(_COMPARED_IMAGES, seed=0)
    batches, total = few.arrays(_COMPARED_BATCH), few.steps(_COMPARED_BATCH)
    return tensor_errors(model, file, batches, total=total, normalize=normalize)
