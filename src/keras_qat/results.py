"""From models to files, proof and table: what a run does once its models are there.

export ── hold the files to the plan ── diagnose ── judge ── record, table, report
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_qat.data import ImageSet, Splits
from keras_qat.evaluation import diagnose, diagnosis_record
from keras_qat.export import export_keras, export_onnx, require_verified
from keras_qat.export.saved_model import export_saved_model
from keras_qat.judging import BASELINE, judge_variants
from keras_qat.model_facts import FACTS_FILE, ModelFacts
from keras_qat.paths import RESULTS_FILE, SETTINGS_FILE
from keras_qat.report import Record, markdown, read_environment, write_report
from keras_qat.run_folder import DATA_FILE
from keras_qat.settings import Settings
from keras_qat.stages import Stages
from keras_qat.storage import write_json, write_text
from keras_qat.training import FineTuned
from keras_qat.types import Placement

PTQ, QAT = "PTQ", "QAT"

_DIAGNOSED_IMAGES = 64
_DIAGNOSED_BATCH = 16
"""Some dozen images are plenty, and both networks run at once."""


@dataclass(frozen=True, eq=False)
class Variants:
    """The models of a run.

    Args:
        baseline: the float model.
        ptq: what post-training quantization made of it.
        placement: where their pairs are.
        tuned: what fine-tuning made of it, if it did.
    """

    baseline: Any
    ptq: Any
    placement: Placement
    tuned: FineTuned | None = None

    @property
    def models(self) -> Mapping[str, Any]:
        """The models by the names of their rows."""
        quantized = {PTQ: self.ptq} if self.tuned is None else {PTQ: self.ptq, QAT: self.tuned.model}
        return {BASELINE: self.baseline, **quantized}


def conclude(variants: Variants, data: Splits, facts: ModelFacts, settings: Settings, stages: Stages) -> Record:
    """Export, verify, diagnose and judge the variants; write what came of it to the run's folder.

    Args:
        variants: the models.
        data: the run's; judged on its validation images.
        facts: what the files will say of their images.
        settings: of the run.
        stages: where the time of each stage is kept.

    Returns:
        The record, also written as `results.json`, `results.md` and `report.html`.

    Raises:
        GateMissedError: a quantized file's Q/DQ pairs are not those of the placement. The files are kept.
    """
    models = variants.models
    write_json(settings.folder / SETTINGS_FILE, settings.to_dict())
    write_json(settings.folder / FACTS_FILE, facts.to_dict())
    write_json(settings.folder / DATA_FILE, data.fingerprints())
    with stages.timed("export"):
        files = {name: _export(model, name, facts, settings) for name, model in models.items()}
        for name in files.keys() - {BASELINE}:
            require_verified(files[name], variants.placement, settings.target, model=models[name])
    if not settings.skip_diagnosis:
        with stages.timed("diagnose"):
            for name in files.keys() - {BASELINE}:
                _diagnose(variants.baseline, models[name], data.selection, _file(name, "_diagnosis.json", settings))
    judged = {name: model for name, model in models.items() if not (settings.skip_baseline and name == BASELINE)}
    validation = _validation(data, settings)
    with stages.timed("evaluate"):
        rows, engine = judge_variants(
            judged, files, validation, settings.target, embedded=facts.embedded, meaning=facts.scores
        )
    record = Record(
        model=settings.name,
        data=data.name,
        target=settings.target,
        images=len(validation),
        engine=engine,
        rows=rows,
        best_epoch=None if variants.tuned is None else variants.tuned.best_epoch,
        history=() if variants.tuned is None else variants.tuned.history,
        settings=settings.to_dict(),
        environment=read_environment(),
        seconds=dict(stages.seconds),
    )
    write_json(settings.folder / RESULTS_FILE, record.to_dict())
    write_text(settings.folder / "results.md", markdown(record))
    write_report(settings.folder)
    return record


def _export(model: Any, name: str, facts: ModelFacts, settings: Settings) -> Path:
    """Write one variant as `.keras`, SavedModel and ONNX; the ONNX file is what will be judged.

    Only the ONNX file normalizes its images, if the settings say so. The baseline stays in float32 whatever the
    precision: it is what the others are compared with.
    """
    export_keras(model, _file(name, ".keras", settings))
    if not settings.skip_saved_model:
        export_saved_model(model, _file(name, "_saved_model", settings))
    return export_onnx(
        model,
        _file(name, ".onnx", settings),
        target=settings.target,
        opset=settings.opset,
        precision="fp32" if name == BASELINE else settings.precision,
        metadata=facts.metadata(),
        normalization=facts.preprocessing.normalization if facts.embedded else None,
    )


def _file(name: str, ending: str, settings: Settings) -> Path:
    return settings.folder / f"{name.lower()}{ending}"


def _diagnose(baseline: Any, quantized: Any, held_out: ImageSet, path: Path) -> None:
    """Where a variant loses accuracy, on images that nothing was calibrated or trained on."""
    images = held_out.take(_DIAGNOSED_IMAGES, seed=0)
    batches, total = images.arrays(_DIAGNOSED_BATCH), images.steps(_DIAGNOSED_BATCH)
    write_json(path, diagnosis_record(diagnose(baseline, quantized, batches, total=total)))


def _validation(data: Splits, settings: Settings) -> ImageSet:
    if settings.validation_images is None:
        return data.validation
    return data.validation.take(settings.validation_images, settings.seed)
