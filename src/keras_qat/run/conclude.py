"""The end of a run, once its models are there: files, their verification, diagnoses, measurements and the report.

export ── verify against the placement ── diagnose ── evaluate ── record, table, report
"""

import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from keras_qat import evaluation, export, machine, report, runtimes, training, verify
from keras_qat.data import DataSet, Splits
from keras_qat.errors import GateMissedError
from keras_qat.models import ModelFacts
from keras_qat.progress import Stages
from keras_qat.run import whole_batches
from keras_qat.run.folder import RunFolder
from keras_qat.run.settings import Settings
from keras_qat.types import BASELINE, PTQ, QAT, OutputTask, Placement

EVALUATION_BATCH = 32

_MOST_NUMBERS = 2**24
"""The most numbers in the outputs of a batch, 64 MB: those of all variants, in Keras and deployed, are held at once."""

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
            judged, files, validation, settings.target, tasks=facts.output_tasks, embedded=facts.embedded
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
        tasks=facts.tasks,
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
        normalization=facts.normalization,
    )


def _diagnose(baseline: Any, quantized: Any, held_out: DataSet) -> evaluation.Diagnosis:
    """Measure where a variant loses accuracy, on images on which nothing was calibrated or trained."""
    samples = whole_batches.some(held_out, baseline, _DIAGNOSED_IMAGES)
    batches = whole_batches.batches(samples, baseline, _DIAGNOSED_BATCH)
    total = whole_batches.steps(samples, baseline, _DIAGNOSED_BATCH)
    return evaluation.diagnose(baseline, quantized, batches, total=total)


def judge_variants(
    models: Mapping[str, Any],
    files: Mapping[str, Path],
    images: DataSet,
    target: str,
    *,
    tasks: tuple[OutputTask, ...],
    embedded: bool = False,
) -> tuple[tuple[report.Row, ...], str]:
    """Evaluate and time every variant in Keras and deployed, on the same data.

    Args:
        models: the Keras models by the name of their row; `BASELINE` may be among them.
        files: the ONNX file of each model.
        images: the data, with any inputs and labels; images are rounded to whole pixels if `embedded`.
        target: the target of the files, which decides the engine that runs them.
        tasks: what each output of all models says, in flattened order.
        embedded: whether the files read pixels and normalize them themselves.

    Returns:
        A row for each variant, and the name of the engine, with the reason why it is not a better one.
    """
    judge = runtimes.choose_judge(target)
    # Files with embedded preprocessing read the same pixels, not normalized.
    fed = _pixels_of(images) if embedded else images
    normalize = images.preprocessing.normalize if embedded else None
    with ExitStack() as stack:
        simulated = {name: stack.enter_context(runtimes.KerasRuntime(model)) for name, model in models.items()}
        size = _batch_size(next(iter(simulated.values())))
        deployed = {name: stack.enter_context(judge.open(files[name], max_batch=size)) for name in models}
        pairs = {name: _pairs(name, known=BASELINE in models) for name in models}
        scores = evaluation.judge_pairs(
            {
                **{_in_keras(name): _fed_pixels(runtime, normalize) for name, runtime in simulated.items()},
                **{_deployed(name): runtime for name, runtime in deployed.items()},
            },
            fed.arrays(size),
            tasks,
            [pair for of_row in pairs.values() for pair in of_row],
            total=fed.steps(size),
        )
        errors = {
            name: _tensor_errors(models[name], files[name], fed, normalize) for name in models if name != BASELINE
        }
        keras_latency = evaluation.measure_latency(simulated, _first(images))
        engine_latency = evaluation.measure_latency(deployed, _first(fed))
        engine = next(iter(deployed.values()))
        rows = tuple(
            report.Row(
                name=name,
                keras_latency=keras_latency[name],
                deployed_latency=engine_latency[name],
                tensor_errors=errors.get(name, ()),
                size_bytes=files[name].stat().st_size,
                **_figures(*(scores[pair] for pair in pairs[name])),
            )
            for name in models
        )
        return rows, judge.describe(engine)


def _batch_size(runtime: runtimes.Runtime) -> int:
    """The batch that a model was made for, or one whose outputs are held without trouble."""
    sizes = (math.prod(size or 1 for size in spec.shape[1:]) for spec in runtime.outputs)
    return evaluation.fixed_batch(runtime.inputs) or min(EVALUATION_BATCH, max(1, _MOST_NUMBERS // sum(sizes)))


def _pixels_of(images: Any) -> DataSet:
    """The same images as whole pixels, not normalized."""
    pixels: DataSet = replace(images, preprocessing=images.preprocessing.raw())
    return pixels


def _in_keras(name: str) -> str:
    return f"{name} in Keras"


def _deployed(name: str) -> str:
    return f"{name} deployed"


def _pairs(name: str, *, known: bool) -> tuple[tuple[str, str | None], ...]:
    """What a row compares: the Keras model and the file with the float Keras model if it is known, and file with model.

    All are computed in one pass over the data.
    """
    reference = _in_keras(BASELINE) if known else None
    return (_in_keras(name), reference), (_deployed(name), reference), (_deployed(name), _in_keras(name))


def _figures(
    keras: tuple[evaluation.OutputScores, ...],
    deployed: tuple[evaluation.OutputScores, ...],
    simulation: tuple[evaluation.OutputScores, ...],
) -> dict[str, Any]:
    """The fields of a row that say how good it is: shares of a classifier, or the figures of all outputs."""
    if [scores.kind for scores in deployed] != ["classification"]:
        nothing = dict.fromkeys(_SHARES)
        return {**nothing, "outputs": deployed, "keras_outputs": keras, "simulation_outputs": simulation}
    of = {"keras": keras[0], "deployed": deployed[0], "simulation": simulation[0]}
    return {field: of[which].value(figure) for field, (which, figure) in _SHARES.items()}


_SHARES: Mapping[str, tuple[str, str]] = {
    "keras_top1": ("keras", "top1"),
    "keras_top5": ("keras", "top5"),
    "deployed_top1": ("deployed", "top1"),
    "deployed_top5": ("deployed", "top5"),
    "agreement": ("deployed", "agreement"),
    "keras_agreement": ("keras", "agreement"),
    "simulation_agreement": ("simulation", "agreement"),
    "simulation_sqnr": ("simulation", "sqnr"),
}
"""{field of a row: (which comparison, its figure)} for a classifier with one output."""


def _fed_pixels(runtime: runtimes.Runtime, normalize: Callable[[Any], Any] | None) -> runtimes.Runtime:
    return runtime if normalize is None else _Normalizing(runtime, normalize)


class _Normalizing(runtimes.Runtime):
    """A Keras model that is fed the pixels which its file normalizes by itself."""

    def __init__(self, runtime: runtimes.Runtime, normalize: Callable[[Any], Any]) -> None:
        super().__init__(runtime.engine, runtime.device, runtime.inputs, runtime.outputs)
        self._runtime = runtime
        self._normalize = normalize

    def _run(self, inputs: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        return self._runtime.run(*(np.asarray(self._normalize(x)) for x in inputs))


def _first(images: DataSet) -> Any:
    """The first sample: an array of shape (1, …), or a tuple of them."""
    image, _ = next(images.arrays(1))
    return image


def _tensor_errors(
    model: Any, file: Path, images: DataSet, normalize: Callable[[Any], Any] | None
) -> tuple[verify.TensorError, ...]:
    few = whole_batches.some(images, model, _COMPARED_IMAGES)
    batches = whole_batches.batches(few, model, _COMPARED_BATCH)
    total = whole_batches.steps(few, model, _COMPARED_BATCH)
    return verify.tensor_errors(model, file, batches, total=total, normalize=normalize)


def check_gates(record: report.Record) -> None:
    """Check that the deployed files of a record compute what was simulated.

    Raises:
        GateMissedError: If a quantized tensor of a deployed file is not what was simulated, or an output isn't: the
            file gives another class than its Keras model on more images than is allowed, by an exact one-sided
            binomial test, or breaks a promise of `verify.output_miss`.
    """
    half = record.settings.get("precision") == "fp16"
    for row in record.rows:
        for miss in (
            verify.tensor_miss(row.name, row.tensor_errors, half=half),
            verify.output_miss(row.name, _compared(row)),
            _class_miss(row, record.images),
        ):
            if miss is not None:
                raise GateMissedError(miss)


def _class_miss(row: report.Row, images: int) -> str | None:
    agreement = row.simulation_agreement
    return None if agreement is None else verify.class_miss(row.name, agreement, images, row.keras_agreement)


def _compared(row: report.Row) -> list[verify.OutputComparison]:
    """Each output of a row with the float model beside it, if the run evaluated that one."""
    return [
        verify.OutputComparison(simulation, *(pair if _against_model(pair) else ()))
        for simulation, *pair in zip(row.simulation_outputs, row.outputs, row.keras_outputs, strict=True)
    ]


def _against_model(scores: Iterable[evaluation.OutputScores]) -> bool:
    return all({"agreement", "sqnr"} & set(one.figures) for one in scores)
