"""A run as a few visible calls: float model → PTQ → QAT → verified files.

baseline ── plan ── calibrate ── apply ──▶ PTQ ── fine_tune ──▶ QAT
   └───────────────────────┬────────────────┴────────────────────┘
           export, verify, evaluate, time, report
"""

from dataclasses import replace
from typing import Any

from keras_qat import calibration, graph, runtimes, training
from keras_qat.data import Splits, find_augmentation
from keras_qat.files import require_creatable
from keras_qat.models import ModelFacts
from keras_qat.onnx import require_opset
from keras_qat.placement import Overrides, plan
from keras_qat.progress import Stages
from keras_qat.report import Record
from keras_qat.run.conclude import EVALUATION_BATCH, Variants, conclude
from keras_qat.run.folder import RunFolder
from keras_qat.run.settings import Settings
from keras_qat.run.stages import quantize_after_training, train_quantized
from keras_qat.run.start import load_saved, open_start
from keras_qat.targets import find_target
from keras_qat.types import BASELINE, PTQ


def run(settings: Settings) -> Record:
    """Quantize, calibrate, fine-tune, export and evaluate one model.

    Args:
        settings: settings of the run, which are saved with the results.

    Returns:
        The record, also written to `settings.folder` as `results.json` and `results.md`, beside the models.

    Raises:
        UserError: If the settings, data or weights are wrong.
        GateMissedError: If a quantized file's Q/DQ pairs are not those of the placement. The files are kept.
    """
    folder, stages = RunFolder(settings.folder), Stages()
    _check_early(settings)
    folder.require_same_run(settings)
    overrides = Overrides() if settings.overrides is None else Overrides.load(settings.overrides)
    with stages.timed("load"):
        start = open_start(settings)
        preprocessing = start.data.train.preprocessing
        facts = ModelFacts(preprocessing, settings.export.embed_preprocessing, start.data.class_names, start.meaning)
        _require_trainable(start.model, start.data, settings)
        folder.clear()
        folder.write_overrides(overrides)
    with stages.timed("calibrate"):
        placement = plan(graph.trace(start.model).graph, settings.target, overrides=overrides)
        ptq = quantize_after_training(start.model, placement, start.data.train, settings)
    variants = Variants(start.model, ptq, placement)
    if not settings.skip_fine_tuning:
        with stages.timed("fine-tune"):
            tuned = train_quantized(ptq, start.model, start.data, settings)
        variants = replace(variants, tuned=tuned)
    return conclude(variants, start.data, facts, settings, stages)


def train(settings: Settings) -> Record:
    """Fine-tune the PTQ model of a run; export and evaluate again.

    Args:
        settings: settings of a run, with the options of this training. The run's folder has the baseline and the PTQ
            model, as `keras-qat quantize` writes them.

    Returns:
        The record, with a row for QAT, which replaces that of the run.

    Raises:
        UserError: If the settings or data are wrong, or files of the run are missing.
        GateMissedError: If a quantized file's Q/DQ pairs are not those of the placement. The files are kept.
    """
    folder, stages = RunFolder(settings.folder), Stages()
    _check_early(settings)
    with stages.timed("load"):
        variants = Variants(folder.model(BASELINE), folder.model(PTQ), folder.placement())
        data, facts = load_saved(settings), folder.facts()
        _require_trainable(variants.baseline, data, settings)
        calibration.require_made_of(graph.trace(variants.baseline), graph.trace(variants.ptq))
    with stages.timed("fine-tune"):
        tuned = train_quantized(variants.ptq, variants.baseline, data, settings)
    return conclude(replace(variants, tuned=tuned), data, facts, settings, stages)


def _check_early(settings: Settings) -> None:
    """Refuse settings whose mistakes would otherwise show after minutes or hours of work."""
    training.require_device_recipe(settings.recipe, training.find_devices(settings.devices))
    find_augmentation(settings.augment)
    runtimes.choose_judge(find_target(settings.target).name)
    calibration.find_observer(settings.calibration.calibration_method)
    calibration.find_weight_method(settings.calibration.weight_method)
    require_opset(settings.export.opset, settings.export.precision)
    require_creatable(settings.folder)


def _require_trainable(model: Any, data: Splits, settings: Settings) -> None:
    """Refuse a model or images that can't be trained with the recipe, unless nothing will be trained."""
    if settings.skip_fine_tuning:
        return
    if not data.train.labelled:
        training.require_label_free(settings.recipe)
    images, _ = next(data.selection.arrays(EVALUATION_BATCH))
    training.require_probabilities(model, images)
