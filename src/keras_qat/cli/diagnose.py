"""`keras-qat diagnose`: which tensors and kernels of a run lose accuracy, and what to try."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from keras_qat.cli.model_file import load_model_file
from keras_qat.cli.options import AtLeastOne, require_output_file
from keras_qat.errors import DataError, StorageError
from keras_qat.settings import Settings

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
    """
    from keras_qat.evaluation import advise, diagnose
    from keras_qat.report import describe_diagnosis
    from keras_qat.storage import write_json

    settings = _settings(run)
    files = [_model_file(run, name) for name in ("baseline", variant)]
    if output is not None:
        require_output_file(output)
    chosen = _held_out(settings if data is None else replace(settings, data=data), images)
    baseline, quantized = map(load_model_file, files)
    diagnosis = diagnose(baseline, quantized, chosen.arrays(_BATCH), total=chosen.steps(_BATCH))
    sys.stdout.write(f"{variant.upper()} of {_described(settings)}.\n\n")
    sys.stdout.write(describe_diagnosis(diagnosis, worst=worst))
    if output is not None:
        write_json(output, {**diagnosis.to_dict(), "advice": [advice.to_dict() for advice in advise(diagnosis)]})


def _settings(run: Path) -> Settings:
    from keras_qat.storage import read_json

    path = run / "settings.json"
    if not path.is_file():
        raise StorageError(
            f"This is not the folder of a run: it has no settings.json. Received: {str(run)!r}. Give the folder that "
            "`keras-qat run` named at its end, such as runs/resnet50-digits-onnxruntime."
        )
    return Settings.from_dict(read_json(path))


def _described(settings: Settings) -> str:
    """What was done already, so that the advice can be read by it."""
    corrected = "corrected" if settings.bias_correction else "not corrected"
    if settings.weight_method != "absmax":
        corrected += f", kernels clipped by {settings.weight_method}"
    return (
        f"{settings.model} for {settings.target}, calibrated with {settings.calibration_method} on "
        f"{settings.calibration_images} images, biases {corrected}"
    )


def _model_file(run: Path, variant: str) -> Path:
    path = run / f"{variant}.keras"
    if not path.is_file():
        present = ", ".join(sorted(found.name for found in run.glob("*.keras"))) or "no .keras file"
        raise StorageError(
            f"The run has no {path.name}. Received: {str(run)!r}, which holds {present}. Choose another --variant, or "
            "let `keras-qat run` finish; with --skip-fine-tuning it makes no qat.keras."
        )
    return path


def _held_out(settings: Settings, images: int) -> Any:
    """Images of the run that nothing was calibrated or trained on."""
    from keras_qat.baseline import load_splits
    from keras_qat.zoo import find

    try:
        return load_splits(settings, find(settings.model)).selection.take(images, settings.seed)
    except DataError as error:
        raise DataError(
            f"The run's images can't be read. {error} If they were moved, or given relative to another "
            f"folder than {str(Path.cwd())!r}, say where they are now with --data."
        ) from error
