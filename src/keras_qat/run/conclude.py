"""The end of a run, once its models are there: files, their verification, diagnoses, measurements and the report.

export ── verify against the placement ── diagnose ── evaluate ── record, table, report
"""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from keras_qat import evaluation, export, machine, report, runtimes, training, verify
from keras_qat.data import ImageSet, Splits
from keras_qat.errors import GateMissedError
from keras_qat.models import ModelFacts
from keras_qat.progress import Stages
from keras_qat.run.folder import RunFolder
from keras_qat.run.settings import Settings
from keras_qat.types import BASELINE, PTQ, QAT, Placement, ScoreMeaning

EVALUATION_BATCH = 32

_DIAGNOSED_IMAGES, _DIAGNOSED_BATCH = 64, 16
"""A few dozen images suffice. The batch is small since both networks run at once."""

_COMPARED_IMAGES, _COMPARED_BATCH = 32, 8
"""Comparing tensor by tensor holds all activations of a batch: some 300 MB for eight images of a ResNet152."""


@dataclass(frozen=True, eq=False)
class Variants:
    """The models of a run.

    Args:
        baseline: the float model.
        ptq: the model after post-training quantization.
        placement: where the Q/DQ pairs of the quantized models are.
        tuned: the model after fine-tuning; `None` if the run does not fine-tune.
    """

    baseline: Any
    ptq: Any
    placement: Placement
    tuned: training.FineTuned | None = None

    @property
    def models(self) -> Mapping[str, Any]:
        """The models by the name of their row."""
        quantized = {PTQ: self.ptq} if self.tuned is None else {PTQ: self.ptq, QAT: self.tuned.model}
        return {BASELINE: self.baseline, **quantized}


def conclude(variants: Variants, data: Splits, facts: ModelFacts, settings: Settings, stages: Stages) -> report.Record:
    """Export, verify, diagnose and evaluate the variants; write the results to the run's folder.

    Args:
        variants: the models.
        data: the run's images. The variants are evaluated on the validation images.
        facts: facts about the images that the files are written with.
        settings: settings of the run.
        stages: measures the time of each stage.

    Returns:
        The record, also written to the folder as values, table and page.

    Raises:
        GateMissedError: If the Q/DQ pairs of a quantized file are not those of the placement. The files are kept.
    """
    folder, models = RunFolder(settings.folder), variants.models
    quantized = [name for name in models if name != BASELINE]
    folder.write_inputs(settings, facts, data.fingerprints())
    with stages.timed("export"):
        files = {name: _export(model, name, facts, settings) for name, model in models.items()}
        for name in quantized:
            verify.require_verified(files[name], variants.placement, settings.target, model=models[name])
    if not settings.skip_diagnosis:
        with stages.timed("diagnose"):
            for name in quantized:
                folder.write_diagnosis(name, _diagnose(variants.baseline, models[name], data.selection))
    judged = {name: model for name, model in models.items() if not (settings.skip_baseline and name == BASELINE)}
    validation = data.validation
    if settings.validation_images is not None:
        validation = validation.take(settings.validation_images, settings.seed)
    with stages.timed("evaluate"):
        rows, engine = judge_variants(
            judged, files, validation, settings.target, embedded=facts.embedded, meaning=facts.scores
        )
    record = report.Record(
        model=settings.name,
        data=data.name,
        target=settings.target,
        images=len(validation),
        engine=engine,
        rows=rows,
        best_epoch=None if variants.tuned is None else variants.tuned.best_epoch,
        history=() if variants.tuned is None else variants.tuned.history,
        settings=settings.to_dict(),
        environment=machine.read_environment(),
        seconds=dict(stages.seconds),
    )
    folder.write_record(record)
    return record


def _export(model: Any, name: str, facts: ModelFacts, settings: Settings) -> Path:
    """Write one variant as `.keras`, SavedModel and ONNX; return the path of the ONNX file, which will be evaluated.

    If preprocessing is embedded, only the ONNX file normalizes its images. The baseline is float32 whatever the
    precision, since the other variants are compared with it.
    """
    folder = RunFolder(settings.folder)
    export.export_keras(model, folder.model_path(name))
    if not settings.skip_saved_model:
        export.export_saved_model(model, folder.saved_model_path(name))
    return export.export_onnx(
        model,
        folder.onnx_path(name),
        target=settings.target,
        opset=settings.export.opset,
        precision="fp32" if name == BASELINE else settings.export.precision,
        metadata=facts.metadata(),
        normalization=facts.preprocessing.normalization if facts.embedded else None,
    )


def _diagnose(baseline: Any, quantized: Any, held_out: ImageSet) -> evaluation.Diagnosis:
    """Measure where a variant loses accuracy, on images on which nothing was calibrated or trained."""
    images = held_out.take(_DIAGNOSED_IMAGES, seed=0)
    batches, total = images.arrays(_DIAGNOSED_BATCH), images.steps(_DIAGNOSED_BATCH)
    return evaluation.diagnose(baseline, quantized, batches, total=total)


def judge_variants(
    models: Mapping[str, Any],
    files: Mapping[str, Path],
    images: ImageSet,
    target: str,
    *,
    embedded: bool = False,
    meaning: ScoreMeaning = "classes",
) -> tuple[tuple[report.Row, ...], str]:
    """Evaluate and time every variant in Keras and deployed, on the same images.

    Args:
        models: the Keras models by the name of their row; `BASELINE` may be among them.
        files: the ONNX file of each model.
        images: the images, rounded to whole pixels if `embedded`.
        target: the target of the files, which decides the engine that runs them.
        embedded: whether the files read pixels and normalize them themselves.
        meaning: what the scores of all models mean.

    Returns:
        A row for each variant, and the name of the engine, with the reason why it is not a better one.
    """
    judge = runtimes.choose_judge(target)
    # Files with embedded preprocessing read the same pixels, not normalized.
    fed = replace(images, preprocessing=images.preprocessing.raw()) if embedded else images
    normalize = images.preprocessing.normalize if embedded else None
    with ExitStack() as stack:
        simulated = {name: stack.enter_context(runtimes.KerasRuntime(model)) for name, model in models.items()}
        deployed = {name: stack.enter_context(judge.open(files[name], max_batch=EVALUATION_BATCH)) for name in models}

        in_keras = {name: _scores(runtime, images, f"{name} in Keras", meaning) for name, runtime in simulated.items()}
        in_engine = {name: _scores(runtime, fed, f"{name} deployed", meaning) for name, runtime in deployed.items()}
        errors = {
            name: _tensor_errors(models[name], files[name], fed, normalize) for name in models if name != BASELINE
        }
        keras_latency = evaluation.measure_latency(simulated, _first(images))
        engine_latency = evaluation.measure_latency(deployed, _first(fed))
        engine = next(iter(deployed.values()))
        rows = tuple(
            report.Row(
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


def _scores(runtime: runtimes.Runtime, images: ImageSet, name: str, meaning: ScoreMeaning) -> evaluation.Predictions:
    batches, total = images.arrays(EVALUATION_BATCH), images.steps(EVALUATION_BATCH)
    return evaluation.predict(runtime, batches, description=f"evaluating {name}", total=total, meaning=meaning)


def _first(images: ImageSet) -> np.ndarray:
    image, _ = next(images.arrays(1))
    return image


def _tensor_errors(
    model: Any, file: Path, images: ImageSet, normalize: Callable[[Any], Any] | None
) -> tuple[verify.TensorError, ...]:
    few = images.take(_COMPARED_IMAGES, seed=0)
    batches, total = few.arrays(_COMPARED_BATCH), few.steps(_COMPARED_BATCH)
    return verify.tensor_errors(model, file, batches, total=total, normalize=normalize)


def check_gates(record: report.Record) -> None:
    """Check that the deployed files of a record compute what was simulated.

    Raises:
        GateMissedError: If a quantized tensor of a deployed file is not what was simulated, or the file gives another
            class than its Keras model on more images than is allowed, by an exact one-sided binomial test.
    """
    half = record.settings.get("precision") == "fp16"
    for row in record.rows:
        for miss in (
            verify.tensor_miss(row.name, row.tensor_errors, half=half),
            verify.class_miss(row.name, row.simulation_agreement, record.images, row.keras_agreement),
        ):
            if miss is not None:
                raise GateMissedError(miss)
