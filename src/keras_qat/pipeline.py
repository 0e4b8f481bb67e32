"""The whole flow as a few visible calls: float model → PTQ → QAT → files → proof.

baseline ── plan ── calibrate ── apply ──▶ PTQ ── fine_tune ──▶ QAT
   └───────────────────────┬────────────────┴────────────────────┘
                    export, evaluate, time, report
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from keras_qat.baseline import float_model, load_splits
from keras_qat.calibration import find_observer, find_weight_method
from keras_qat.data import ImageSet, Splits, find_augmentation
from keras_qat.export import export_keras, export_onnx, require_opset, require_verified
from keras_qat.export.saved_model import export_saved_model
from keras_qat.graph import trace
from keras_qat.judging import BASELINE, judge_variants
from keras_qat.model_facts import FACTS_FILE, ModelFacts
from keras_qat.placement import Overrides, plan
from keras_qat.ptq import quantize_after_training
from keras_qat.qat import recipe_of, train_quantized
from keras_qat.report import Record, markdown, read_environment
from keras_qat.runtimes import choose_judge
from keras_qat.settings import Settings
from keras_qat.storage import require_writable, write_json, write_text
from keras_qat.targets import find_target
from keras_qat.training import find_devices, require_device_recipe
from keras_qat.zoo import find

_logger = logging.getLogger(__name__)

PTQ, QAT = "PTQ", "QAT"


def run(settings: Settings) -> Record:
    """Quantize, calibrate, fine-tune, export and judge one model.

    Args:
        settings: what to do; saved with the results.

    Returns:
        The record, also written to `settings.folder` as `results.json` and `results.md`, beside the models.

    Raises:
        UserError: the settings, data or weights are wrong.
        GateMissedError: a quantized file's Q/DQ pairs are not those of the placement. The files are kept.
    """
    folder = settings.folder
    seconds: dict[str, float] = {}
    entry = find(settings.model)
    _check_early(settings)
    overrides = Overrides() if settings.overrides is None else Overrides.load(settings.overrides)
    write_json(folder / "settings.json", settings.to_dict())
    overrides.save(folder / "overrides.json")

    with _timed(seconds, "load"):
        data = load_splits(settings, entry)
        baseline = float_model(settings, entry, data)
        facts = ModelFacts(data.train.preprocessing, settings.embed_preprocessing, data.class_names)
        write_json(folder / FACTS_FILE, facts.to_dict())
    with _timed(seconds, "calibrate"):
        placement = plan(trace(baseline).graph, settings.target, overrides=overrides)
        ptq = quantize_after_training(baseline, placement, data.train, settings)
    models = {BASELINE: baseline, PTQ: ptq}
    tuned = None
    if not settings.skip_fine_tuning:
        with _timed(seconds, "fine-tune"):
            tuned = train_quantized(ptq, baseline, data, settings)
        models[QAT] = tuned.model
    with _timed(seconds, "export"):
        files = {name: _export(model, name, facts, settings) for name, model in models.items()}
        for name in files.keys() - {BASELINE}:
            require_verified(files[name], placement, settings.target, model=models[name])
    if settings.skip_baseline:
        del models[BASELINE]
    validation = _validation(data, settings)
    with _timed(seconds, "evaluate"):
        rows, engine = judge_variants(models, files, validation, settings.target, embedded=facts.embedded)
    record = Record(
        model=entry.name,
        data=data.name,
        target=settings.target,
        images=len(validation),
        engine=engine,
        rows=rows,
        best_epoch=None if tuned is None else tuned.best_epoch,
        settings=settings.to_dict(),
        environment=read_environment(),
        seconds=seconds,
    )
    write_json(folder / "results.json", record.to_dict())
    write_text(folder / "results.md", markdown(record))
    return record


def _check_early(settings: Settings) -> None:
    """Find the mistakes that would otherwise show after minutes or hours of work."""
    require_device_recipe(recipe_of(settings), find_devices(settings.devices))
    find_augmentation(settings.augment)
    choose_judge(find_target(settings.target).name)
    find_observer(settings.calibration_method)
    find_weight_method(settings.weight_method)
    require_opset(settings.opset, settings.precision)
    require_writable(settings.folder)


def _export(model: Any, name: str, facts: ModelFacts, settings: Settings) -> Path:
    """Write one variant as `.keras`, SavedModel and ONNX; the ONNX file is what will be judged.

    Only the ONNX file normalizes its images, if the settings say so. The baseline stays in float32 whatever the
    precision: it is what the others are compared with.
    """
    stem = settings.folder / name.lower()
    export_keras(model, stem.with_suffix(".keras"))
    if not settings.skip_saved_model:
        export_saved_model(model, stem.with_name(f"{stem.name}_saved_model"))
    return export_onnx(
        model,
        stem.with_suffix(".onnx"),
        target=settings.target,
        opset=settings.opset,
        precision="fp32" if name == BASELINE else settings.precision,
        metadata=facts.metadata(),
        normalization=facts.preprocessing.normalization if facts.embedded else None,
    )


def _validation(data: Splits, settings: Settings) -> ImageSet:
    if settings.validation_images is None:
        return data.validation
    return data.validation.take(settings.validation_images, settings.seed)


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    _logger.info("%s …", stage)
    start = time.perf_counter()
    yield
    seconds[stage] = round(time.perf_counter() - start, 2)
    _logger.info("%s: %.1f s", stage, seconds[stage])
