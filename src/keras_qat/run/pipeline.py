"""A run as a few visible calls: float model → PTQ → QAT → verified files.

baseline ── plan ── calibrate ── apply ──▶ PTQ ── fine_tune ──▶ QAT
   └───────────────────────┬────────────────┴────────────────────┘
           export, verify, evaluate, time, report

Post-training quantization and fine-tuning take the settings of the run, call the package that does the work, and write
to the folder of the run.
"""

import itertools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from keras_qat import calibration, files, graph, models, onnx, report, runtimes, targets, training
from keras_qat.data import DataSet, Splits, decode_errors, find_augmentation
from keras_qat.errors import UserError
from keras_qat.placement import Overrides, plan
from keras_qat.progress import Stages
from keras_qat.run import whole_batches
from keras_qat.run.conclude import EVALUATION_BATCH, Variants, conclude
from keras_qat.run.folder import RunFolder
from keras_qat.run.settings import Settings
from keras_qat.run.start import epochs_of, load_saved, open_start
from keras_qat.types import BASELINE, PTQ, OutputTask, Placement

_logger = logging.getLogger(__name__)

_CORRECTION_IMAGES = 128
"""That many images give the means over all their pixels precisely enough."""

_CORRECTION_BATCH = 32


def run(settings: Settings) -> report.Record:
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
    with files.locked(folder.path, "a run"):
        folder.require_reusable(settings)
        overrides = Overrides() if settings.overrides is None else Overrides.load(settings.overrides)
        with stages.timed("load"):
            start = open_start(settings)
            facts = models.ModelFacts.of(
                start.tasks,
                start.data.train.preprocessing,
                start.data.class_names,
                embedded=settings.export.embed_preprocessing,
            )
            _require_trainable(start.model, start.data, start.tasks, settings)
            samples = _calibration_samples(start.model, start.data.train, settings)
            size = settings.calibration.calibration_batch_size
            calibration.require_variety(whole_batches.inputs(samples, start.model, size))
            folder.begin(settings)
            folder.write_overrides(overrides)
        with stages.timed("calibrate"):
            placement = plan(graph.trace(start.model).graph, settings.target, overrides=overrides)
            ptq = quantize_after_training(start.model, placement, start.data.train, settings)
        variants = Variants(start.model, ptq, placement)
        if not settings.skip_fine_tuning:
            with stages.timed("fine-tune"):
                tuned = train_quantized(ptq, start.model, start.data, start.tasks, settings)
            variants = replace(variants, tuned=tuned)
        return conclude(variants, start.data, facts, settings, stages)


def train(settings: Settings) -> report.Record:
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
    with files.locked(folder.path, "training"):
        with stages.timed("load"):
            variants = Variants(folder.model(BASELINE), folder.model(PTQ), folder.placement())
            onnx.require_exportable(variants.ptq)
            data, facts = load_saved(settings), folder.facts()
            calibration.require_made_of(graph.trace(variants.baseline), graph.trace(variants.ptq))
            _require_trainable(variants.baseline, data, facts.output_tasks, settings)
        with stages.timed("fine-tune"):
            tuned = train_quantized(variants.ptq, variants.baseline, data, facts.output_tasks, settings)
        return conclude(replace(variants, tuned=tuned), data, facts, settings, stages)


def _check_early(settings: Settings) -> None:
    """Refuse settings whose mistakes would otherwise show after minutes or hours of work."""
    training.require_device_recipe(settings.recipe, training.find_devices(settings.devices))
    find_augmentation(settings.augment)
    runtimes.choose_judge(targets.find_target(settings.target).name)
    calibration.find_observer(settings.calibration.calibration_method)
    calibration.find_weight_method(settings.calibration.weight_method)
    onnx.require_opset(settings.export.opset, settings.export.precision)
    files.require_creatable(settings.folder)


def _require_trainable(model: Any, data: Splits, tasks: Sequence[OutputTask], settings: Settings) -> None:
    """Refuse a model or data that can't be trained with the recipe, unless nothing will be trained."""
    if settings.skip_fine_tuning:
        return
    if not data.train.labelled:
        training.require_label_free(settings.recipe)
    fixed = whole_batches.batch_size(model, settings.recipe.batch_size)
    if fixed != settings.recipe.batch_size:
        raise UserError(
            "The model was built for batches of another size. Received: "
            f"--batch-size {settings.recipe.batch_size} for a model of batches of {fixed}. Give --batch-size {fixed}."
        )
    training.require_trainable(model, settings.recipe, tasks=tuple(tasks))


def _calibration_samples(model: Any, train: DataSet, settings: Settings) -> DataSet:
    return whole_batches.some(train, model, settings.calibration.calibration_images, settings.seed)


def quantize_after_training(model: Any, placement: Placement, train: DataSet, settings: Settings) -> Any:
    """Calibrate, insert the fake quantization, and correct weights and biases as the settings say.

    Placement, ranges and a report of each correction are written to the folder of the run.

    Args:
        model: the float model. It is not changed.
        placement: from `plan`.
        train: the training images, from which those for calibration are taken.
        settings: settings of the run.

    Returns:
        The quantized model.
    """
    folder, options = RunFolder(settings.folder), settings.calibration
    samples = _calibration_samples(model, train, settings)
    if len(samples) < options.calibration_images:
        _logger.warning("Calibrating with %d images: the training set has no more.", len(samples))
    ranges = _ranges(model, placement, samples, settings)
    folder.write_ranges(placement, ranges)
    quantized = _insert(model, placement, ranges, train, settings)
    folder.write_repairs(*_repairs(quantized))
    return quantized.model


def _ranges(model: Any, placement: Placement, samples: DataSet, settings: Settings) -> calibration.Ranges:
    """The ranges of all quantized tensors, from the cache if they are there."""
    options = settings.calibration
    size, method = options.calibration_batch_size, options.calibration_method

    def compute() -> calibration.Ranges:
        read, total = whole_batches.batches(samples, model, size), whole_batches.steps(samples, model, size)
        return calibration.calibrate(model, placement, read, method=method, total=total)

    if not options.use_cache:
        return compute()
    # The key has the digest of the prepared images, since a folder can change under the same name; reading them takes
    # little time beside calibration.
    arrays = itertools.chain.from_iterable(whole_batches.inputs(samples, model, size))
    data = {"images": calibration.digest(arrays), "batch_size": size}
    return calibration.cached_ranges(calibration.ranges_key(model, placement, data, method, len(samples)), compute)


def _insert(
    model: Any, placement: Placement, ranges: calibration.Ranges, train: DataSet, settings: Settings
) -> calibration.Quantized:
    options = settings.calibration
    if not options.bias_correction:
        return calibration.insert(model, placement, ranges, weight_method=options.weight_method)
    samples = whole_batches.some(train, model, min(options.calibration_images, _CORRECTION_IMAGES), settings.seed)
    size = min(options.calibration_batch_size, _CORRECTION_BATCH)
    return calibration.insert(
        model,
        placement,
        ranges,
        weight_method=options.weight_method,
        correction=whole_batches.batches(samples, model, size),
        total=whole_batches.steps(samples, model, size),
    )


def _repairs(quantized: calibration.Quantized) -> tuple[Mapping[str, Any] | None, Mapping[str, Any] | None]:
    """The corrected ranges of kernels and means of outputs, as JSON can hold them; `None` where none was corrected."""
    kernels, biases = quantized.weight_ranges, quantized.bias_correction
    kept = None
    if kernels is not None:
        kept = {layer: {"least": float(k.min()), "mean": float(k.mean())} for layer, k in kernels.kept.items()}
    corrected = None
    if biases is not None:
        corrected = {
            "images": biases.images,
            "largest_shift": {layer: float(np.abs(shift).max()) for layer, shift in biases.shifts.items()},
            "skipped": dict(biases.skipped),
        }
    return kept, corrected


def train_quantized(
    quantized: Any, teacher: Any, data: Splits, tasks: Sequence[OutputTask], settings: Settings
) -> training.FineTuned:
    """Fine-tune a quantized model with the float model as its teacher, up to its best epoch.

    The recipe, and checkpoints from which an interrupted run continues, are written to the folder of the run.

    Args:
        quantized: from `quantize_after_training`. It is not changed.
        teacher: the float model. It is not changed.
        data: the data. The model is trained on the training samples; the selection samples choose the epoch.
        tasks: what each output of the models says.
        settings: settings of the run.
    """
    folder, recipe = RunFolder(settings.folder), settings.recipe
    folder.write_recipe(recipe)
    devices = training.find_devices(settings.devices)
    training.require_device_recipe(recipe, devices)
    size = whole_batches.batch_size(quantized, EVALUATION_BATCH)
    train_samples = _shareable(whole_batches.whole_batches(data.train, quantized), recipe.batch_size, len(devices))
    selection = _shareable(whole_batches.whole_batches(data.selection, quantized), size, len(devices))
    train = epochs_of(train_samples, recipe.batch_size, recipe.seed, find_augmentation(settings.augment))
    with decode_errors(), training.device_scope(devices):
        return training.fine_tune(
            quantized,
            train,
            selection.batches(size),
            recipe,
            teacher=teacher,
            tasks=tuple(tasks),
            folder=folder.checkpoints(settings.augment),
            data_id=f"{train_samples.fingerprint()} {selection.fingerprint()}",
        )


def _shareable(samples: DataSet, batch_size: int, devices: int) -> DataSet:
    """All samples except those of a last batch that is too small for the devices."""
    count = training.shareable(len(samples), batch_size, devices)
    return samples if count == len(samples) else samples.take(count, seed=0)
