"""The commands that make quantized models: `keras-qat run`, or step by step `quantize` and `train`."""

from collections.abc import Container, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from keras_qat import models as networks
from keras_qat import run as runs
from keras_qat.calibration import CalibrationOptions
from keras_qat.cli.shared import (
    SKIP_ANEW,
    SKIP_NOW,
    Json,
    given,
    offering_skip_bad,
    option_group,
    require_all,
    show_results,
)
from keras_qat.data import require_source
from keras_qat.errors import UserError
from keras_qat.export import ExportOptions
from keras_qat.files import read_text, require_creatable, require_model_file, require_weights
from keras_qat.run import OPTIONS, Option
from keras_qat.targets import find_target
from keras_qat.training import Distillation, Recipe
from keras_qat.types import BASELINE, PTQ

_ALL = ("all",)


def _of(*owners: type, names: Container[str] = ()) -> list[Option]:
    """The options of a run that these classes declare, or that have one of these names."""
    return [option for option in OPTIONS.values() if option.owner in owners or option.name in names]


if TYPE_CHECKING:
    RunOptions = Any
    QuantizeOptions = Any
    TrainOptions = Any
else:
    _QUANTIZING = {
        *("target", "preprocessing", "skip_bad", "overrides"),
        *("validation_images", "output", "run_folder", "seed"),
    }
    RunOptions = option_group("RunOptions", OPTIONS.values())
    QuantizeOptions = option_group("QuantizeOptions", _of(CalibrationOptions, ExportOptions, names=_QUANTIZING))
    _TRAINING = _of(Recipe, Distillation, names={"augment", "devices"})
    # The seed also divides the images into those that train and those that judge, so a run keeps its own.
    TrainOptions = option_group("TrainOptions", _TRAINING, optional=OPTIONS, without={"seed"})


def run_command(
    *,
    options: Annotated[RunOptions, Parameter(name="*")] | None = None,
    models: Annotated[tuple[str, ...], Parameter(consume_multiple=True)] = (),
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Quantize, calibrate, fine-tune, export and evaluate a model; print the table of results.

    Without arguments, the model is ResNet50 on the embedded handwritten digits; its float baseline is trained first and
    cached.

    Examples:
        keras-qat run

        keras-qat run --model resnet50 --weights resnet50.weights.h5 --data imagenet/ --target tensorrt

        keras-qat run --model mine.keras --data photos/

        keras-qat run --models all --data digits

    Args:
        options: Options of the run.
        models: Names of several networks, which are run one after the other, or "all" for resnet50, resnet50v2,
            resnet101 and resnet101v2.
        as_json: Print JSON instead of the table.
    """
    settings = runs.Settings.of(**given(options))
    named = [settings] if models in {(), _ALL} else [settings.changed(model=name) for name in models]
    _require(settings, *named)
    chosen = (networks.SEED_MODELS if models == _ALL else models) or (settings.model,)
    if settings.run_folder is not None and len(chosen) > 1:
        raise UserError(
            f"Several networks don't fit in one folder. Received: --run-folder {settings.run_folder} with --models "
            f"{' '.join(chosen)}. Use --output: each network gets a folder in it."
        )
    _run([settings.changed(model=name) for name in chosen], as_json=as_json)


def quantize_command(
    model: Path,
    /,
    *,
    data: str,
    options: Annotated[QuantizeOptions, Parameter(name="*")] | None = None,
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Quantize a trained Keras model to an ONNX file for an engine; check that the file computes what was simulated.

    Needs a folder of a few hundred images like those that the model will see. They need no labels; with labels, the
    accuracy is reported, too. The files and report.html are written to a folder that is named at the end.

    Examples:
        keras-qat quantize my.keras --data photos/

        keras-qat quantize my.keras --data photos/ --target tensorrt --preprocessing unit:96

    Args:
        model: The .keras file.
        data: The images: a folder of images, of CLASS/IMAGE, or of train/CLASS/IMAGE and val/CLASS/IMAGE, a folder of
            TFRecord shards, tfds:NAME, or digits.
        options: How the model is quantized, and where the files go.
        as_json: Print JSON instead of the table.
    """
    if model.suffix.lower() != ".keras":
        raise UserError(
            f"A model is quantized from its .keras file. Received: {str(model)!r}. Save it with "
            "`model.save('my.keras')`; networks by name, such as resnet50, go with `keras-qat run`."
        )
    settings = runs.Settings.of(
        model=str(model), data=data, skip_fine_tuning=True, skip_saved_model=True, **given(options)
    )
    _require(settings, settings)
    _run([settings], as_json=as_json)


def train_command(
    run: Path,
    /,
    *,
    data: str | None = None,
    options: Annotated[TrainOptions, Parameter(name="*")] | None = None,
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Fine-tune the quantized model of a run, with the float model as its teacher; write and evaluate its files again.

    Options that are not given are those of the run's settings.json. The best epoch is kept. That may be none, so the
    model never gets worse on the images that choose. An interrupted training continues from its last checkpoint.

    Examples:
        keras-qat train runs/my-photos-onnxruntime

        keras-qat train runs/my-photos-onnxruntime --epochs 3 --learning-rate 1e-5 --augment flip

    Args:
        run: The folder that `keras-qat quantize` or `keras-qat run` named at its end.
        data: Where the run's images are now, if they were moved, or if `--data` was a path relative to another folder.
        options: Options that differ from the run's settings.
        as_json: Print JSON instead of the table.
    """
    folder = runs.RunFolder(run)
    saved = folder.settings()
    require_all((require_source, data), (require_creatable, run))
    for variant in (BASELINE, PTQ):
        folder.require_model(variant)
    moved = {} if data is None else {"data": data}
    settings = saved.changed(skip_fine_tuning=False, **moved, **given(options))
    with offering_skip_bad(SKIP_ANEW, given=settings.skip_bad):
        show_results([(runs.train(settings), run)], as_json=as_json)


def _require(settings: runs.Settings, *named: runs.Settings) -> None:
    """Check paths and names before modules are imported that take seconds to load."""
    require_all(
        *((require_model_file, item.model_file) for item in named),
        (require_weights, settings.weights),
        (require_source, settings.data),
        (find_target, settings.target),
        (read_text, settings.overrides),
        *((require_creatable, item.folder) for item in named),
    )


def _run(chosen: Sequence[runs.Settings], *, as_json: bool) -> None:
    with offering_skip_bad(SKIP_NOW, given=chosen[0].skip_bad):
        show_results(((runs.run(settings), settings.folder) for settings in chosen), as_json=as_json)
