"""`keras-qat train`: fine-tunes what a run quantized."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from keras_qat.cli.options import SKIP_ANEW, AtLeastOne, Json, offering_skip_bad, require_all
from keras_qat.data_names import require_source
from keras_qat.paths import variant_file
from keras_qat.run_folder import saved_settings
from keras_qat.storage import require_creatable
from keras_qat.types import AugmentationName, Monitor, RangeMode, TrainingPrecision


def train_command(
    run: Path,
    /,
    *,
    data: str | None = None,
    epochs: Annotated[int | None, AtLeastOne] = None,
    steps_per_epoch: Annotated[int | None, AtLeastOne] = None,
    batch_size: Annotated[int | None, AtLeastOne] = None,
    accumulate: Annotated[int | None, AtLeastOne] = None,
    learning_rate: float | None = None,
    optimizer: str | None = None,
    schedule: str | None = None,
    distillation: float | None = None,
    temperature: float | None = None,
    batch_norm: str | None = None,
    range_mode: RangeMode | None = None,
    freeze_ranges_after: Annotated[int | None, AtLeastOne] = None,
    weight_decay: float | None = None,
    clip_norm: float | None = None,
    label_smoothing: float | None = None,
    training_precision: TrainingPrecision | None = None,
    monitor: Monitor | None = None,
    augment: AugmentationName | None = None,
    devices: int | None = None,
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Fine-tune the quantized model of a run, with the float model as its teacher; write and judge the files again.

    What isn't given is as in the run's settings.json. The best epoch is kept, and that may be none: the model never
    gets worse on the images that choose. A training that was cut off goes on from its last checkpoint.

    Examples:
        keras-qat train runs/my-photos-onnxruntime

        keras-qat train runs/my-photos-onnxruntime --epochs 3 --learning-rate 1e-5 --augment flip

    Args:
        run: The folder that `keras-qat quantize` or `keras-qat run` named at its end.
        data: Where the run's images are now, if they were moved, or if `--data` was a path relative to another folder.
        epochs: Of fine-tuning.
        steps_per_epoch: The most steps of one epoch.
        batch_size: Images in a batch.
        accumulate: Steps whose gradients are averaged: large batches in little memory.
        learning_rate: Before the schedule.
        optimizer: adam, sgd-momentum or sgd.
        schedule: warmup-cosine, cosine, piecewise, constant, or pieces such as 1.0@1,0.1@2,0.01@7.
        distillation: The float model's share in the loss; 1 needs no labels, 0 trains on the labels alone.
        temperature: Of the distillation.
        batch_norm: freeze, train, or freeze_after=N epochs.
        range_mode: What training does to the ranges of activations: fixed, ema or learned.
        freeze_ranges_after: Epochs after which ema or learned ranges stay.
        weight_decay: Of kernels.
        clip_norm: The most that the norm of all gradients together may be.
        label_smoothing: Share of a label that is spread over all classes.
        training_precision: float32 or mixed_bfloat16.
        monitor: Choose the best epoch by loss or by accuracy.
        augment: Vary the images at random: none, flip or crop.
        devices: GPUs that share a batch; 0 takes all.
        as_json: Print JSON instead of the table.
    """
    changes: dict[str, Any] = {
        "epochs": epochs,
        "steps_per_epoch": steps_per_epoch,
        "batch_size": batch_size,
        "accumulate": accumulate,
        "learning_rate": learning_rate,
        "optimizer": optimizer,
        "schedule": schedule,
        "distillation": distillation,
        "temperature": temperature,
        "batch_norm": batch_norm,
        "range_mode": range_mode,
        "freeze_ranges_after": freeze_ranges_after,
        "weight_decay": weight_decay,
        "clip_norm": clip_norm,
        "label_smoothing": label_smoothing,
        "training_precision": training_precision,
        "monitor": monitor,
        "augment": augment,
        "devices": devices,
    }
    require_all((saved_settings, run), (require_source, data), (require_creatable, run))
    for variant in ("baseline", "ptq"):
        variant_file(run, variant)
    from keras_qat.cli.results import show_results
    from keras_qat.pipeline import train
    from keras_qat.saved_run import open_run

    saved = open_run(run, data=data)
    given = {name: value for name, value in changes.items() if value is not None}
    settings = replace(saved.settings, skip_fine_tuning=False, **given)
    with offering_skip_bad(SKIP_ANEW, given=settings.skip_bad):
        show_results([(train(replace(saved, settings=settings)), run)], as_json=as_json)
