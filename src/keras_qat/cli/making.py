"""`keras-qat run`: from a trained network to verified INT8, with the results table.

`keras-qat quantize`: from a `.keras` file to a verified INT8 ONNX file, with nothing trained.

`keras-qat train`: fine-tunes what a run quantized.
"""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from keras_qat.cli.options import SKIP_ANEW, SKIP_NOW, AtLeastOne, Flag, Json, offering_skip_bad, require_all
from keras_qat.data import require_source
from keras_qat.errors import UserError
from keras_qat.files import read_text, require_creatable, require_model_file, require_weights, variant_file
from keras_qat.run import Settings, saved_settings
from keras_qat.targets import find_target
from keras_qat.types import AugmentationName, Monitor, Precision, RangeMode, TrainingPrecision

_ALL = ("all",)


def run_command(
    *,
    settings: Annotated[Settings, Parameter(name="*")] | None = None,
    models: Annotated[tuple[str, ...], Parameter(consume_multiple=True)] = (),
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Quantize, calibrate, fine-tune, export and judge a model; print the results table.

    Without arguments: ResNet50 on the embedded handwritten digits, its float baseline trained first and cached.

    Examples:
        keras-qat run

        keras-qat run --model resnet50 --weights resnet50.weights.h5 --data imagenet/ --target tensorrt

        keras-qat run --model mine.keras --data photos/

        keras-qat run --models all --data digits

    Args:
        settings: What to do.
        models: Several networks one after the other: their names, or "all" for resnet50, resnet50v2, resnet101 and
            resnet101v2.
        as_json: Print JSON instead of the table.
    """
    settings = settings or Settings()
    named = [settings] if models in {(), _ALL} else [replace(settings, model=name) for name in models]
    require_all(
        *((require_model_file, one.own_model) for one in named),
        (require_weights, settings.weights),
        (require_source, settings.data),
        (find_target, settings.target),
        (read_text, settings.overrides),
        *((require_creatable, one.folder) for one in named),
    )
    # TensorFlow takes seconds to load; `--help`, a mistyped option or path needn't wait for it.
    from keras_qat.cli.output import show_results
    from keras_qat.models import SEED_MODELS
    from keras_qat.run import run

    names = (SEED_MODELS if models == _ALL else models) or (settings.model,)
    if settings.run_folder is not None and len(names) > 1:
        raise UserError(
            f"Several networks don't fit in one folder. Received: --run-folder {settings.run_folder} with --models "
            f"{' '.join(names)}. Use --output: each network gets a folder in it."
        )
    runs = [replace(settings, model=name) for name in names]
    with offering_skip_bad(SKIP_NOW, given=settings.skip_bad):
        show_results(((run(one), one.folder) for one in runs), as_json=as_json)


def quantize_command(
    model: Path,
    /,
    *,
    data: str,
    target: str = "onnxruntime",
    preprocessing: str | None = None,
    skip_bad: Annotated[bool, Flag] = False,
    calibration_images: Annotated[int, AtLeastOne] = 256,
    calibration_method: str = "mse",
    weight_method: str = "mse",
    bias_correction: bool = True,
    overrides: Path | None = None,
    validation_images: Annotated[int | None, AtLeastOne] = None,
    batch_size: Annotated[int, AtLeastOne] = 64,
    precision: Precision = "fp32",
    opset: int | None = None,
    embed_preprocessing: Annotated[bool, Flag] = False,
    output: Path = Path("runs"),
    run_folder: Path | None = None,
    seed: int = 0,
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Quantize a trained Keras model to an ONNX file for an engine; prove that it computes what it should.

    Needs a folder of a few hundred images like those that the model will see. They need no labels; with labels, the
    accuracy is reported, too. Writes the files, their proof and report.html to a folder that is named at the end.

    Examples:
        keras-qat quantize my.keras --data photos/

        keras-qat quantize my.keras --data photos/ --target tensorrt --preprocessing unit:96

    Args:
        model: The .keras file.
        data: A folder of images, of CLASS/IMAGE, or of train/CLASS/IMAGE and val/CLASS/IMAGE; TFRecord shards;
            tfds:NAME; or digits.
        target: The engine to deploy to: onnxruntime, openvino or tensorrt.
        preprocessing: How images are prepared for the model, as MODE:SIZE or MODE:SIZE:RESIZE, such as unit:96 or
            caffe:224:256. Not needed where the model begins with a Rescaling or Normalization layer.
        skip_bad: Leave out files that are no image or only a part of one, and corrupt records, instead of stopping.
        calibration_images: How many images choose the ranges.
        calibration_method: minmax, ema, percentile, entropy, mse or auto.
        weight_method: The range of each output channel of a kernel: absmax, or mse, with the least squared error.
        bias_correction: Take back the shift that rounding puts on the mean of each layer's output.
        overrides: A JSON file of rules that change the target's placement (docs/overrides.md).
        validation_images: Compare with the float model on that many images; on all that were held out if not given.
        batch_size: Images in a batch of calibration.
        precision: Floating-point type of what isn't quantized: fp32 or fp16.
        opset: ONNX operator set, 13 to 21; 17 if not given, 19 for fp16.
        embed_preprocessing: The file reads uint8 pixels and normalizes them itself.
        output: The folder of all runs; each makes a folder of its own in it.
        run_folder: The folder to write to, instead of one in `output` named after model, data and target.
        seed: The same seed takes the same images.
        as_json: Print JSON instead of the table.
    """
    if model.suffix.lower() != ".keras":
        raise UserError(
            f"A model is quantized from its .keras file. Received: {str(model)!r}. Save it with "
            "`model.save('my.keras')`; networks by name, such as resnet50, go with `keras-qat run`."
        )
    settings = Settings(
        model=str(model),
        data=data,
        target=target,
        preprocessing=preprocessing,
        skip_bad=skip_bad,
        calibration_images=calibration_images,
        calibration_method=calibration_method,
        weight_method=weight_method,
        bias_correction=bias_correction,
        overrides=overrides,
        validation_images=validation_images,
        batch_size=batch_size,
        precision=precision,
        opset=opset,
        embed_preprocessing=embed_preprocessing,
        output=output,
        run_folder=run_folder,
        seed=seed,
        skip_fine_tuning=True,
        skip_saved_model=True,
    )
    require_all(
        (require_model_file, model),
        (require_source, data),
        (find_target, target),
        (read_text, overrides),
        (require_creatable, settings.folder),
    )
    from keras_qat.cli.output import show_results
    from keras_qat.run import run

    with offering_skip_bad(SKIP_NOW, given=skip_bad):
        show_results([(run(settings), settings.folder)], as_json=as_json)


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
    from keras_qat.cli.output import show_results
    from keras_qat.run import open_run, train

    saved = open_run(run, data=data)
    given = {name: value for name, value in changes.items() if value is not None}
    settings = replace(saved.settings, skip_fine_tuning=False, **given)
    with offering_skip_bad(SKIP_ANEW, given=settings.skip_bad):
        show_results([(train(replace(saved, settings=settings)), run)], as_json=as_json)
