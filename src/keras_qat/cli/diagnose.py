"""`keras-qat diagnose`: which tensors and kernels of a run lose accuracy, and what to try."""

from pathlib import Path
from typing import Annotated, Literal

from keras_qat.cli.options import SKIP_ANEW, AtLeastOne, Json, offering_skip_bad, require_all, require_output_file
from keras_qat.cli.show import show
from keras_qat.data_names import require_source
from keras_qat.paths import variant_file
from keras_qat.run_folder import saved_settings
from keras_qat.settings import Settings
from keras_qat.storage import write_json

_BATCH = 16


def diagnose_command(
    run: Path,
    /,
    *,
    variant: Literal["ptq", "qat"] = "ptq",
    images: Annotated[int, AtLeastOne] = 64,
    worst: Annotated[int, AtLeastOne] = 10,
    data: str | None = None,
    output: Path | None = None,
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Say which tensors and kernels of a run's quantized model lose the most, and what to try.

    Measured on training images that were held out, so that neither calibration nor fine-tuning has learned them. The
    figures are explained in docs/diagnose.md.

    Examples:
        keras-qat diagnose runs/resnet50-digits-onnxruntime

        keras-qat diagnose runs/resnet50-imagenet-tensorrt --variant qat --images 256 --output diagnosis.json

    Args:
        run: The folder of a run, as `keras-qat run` names it at its end.
        variant: Which model of the run: ptq or qat.
        images: How many images to measure on.
        worst: How many tensors and kernels to show.
        data: Where the run's images are now, if they were moved, or if `--data` was a path relative to another folder.
        output: Write all figures and all advice to this JSON file, too.
        as_json: Print JSON instead of the tables.
    """
    require_all((saved_settings, run), (require_source, data), (require_output_file, output))
    files = [variant_file(run, name) for name in ("baseline", variant)]
    from keras_qat.evaluation import diagnose, diagnosis_record
    from keras_qat.model_file import load_model_file
    from keras_qat.report import describe_diagnosis
    from keras_qat.saved_run import open_run

    saved = open_run(run, data=data)
    with offering_skip_bad(SKIP_ANEW, given=saved.settings.skip_bad):
        chosen = saved.data().selection.take(images, saved.settings.seed)
        baseline, quantized = map(load_model_file, files)
        diagnosis = diagnose(baseline, quantized, chosen.arrays(_BATCH), total=chosen.steps(_BATCH))
    record = diagnosis_record(diagnosis)
    head = f"{variant.upper()} of {_described(saved.settings)}.\n\n"
    show(lambda: head + describe_diagnosis(diagnosis, worst=worst), record, as_json=as_json)
    if output is not None:
        write_json(output, record)


def _described(settings: Settings) -> str:
    """What was done already, so that the advice can be read by it."""
    corrected = "corrected" if settings.bias_correction else "not corrected"
    if settings.weight_method != "absmax":
        corrected += f", kernels clipped by {settings.weight_method}"
    return (
        f"{settings.model} for {settings.target}, calibrated with {settings.calibration_method} on "
        f"{settings.calibration_images} images, biases {corrected}"
    )
