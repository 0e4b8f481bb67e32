"""The commands from a model to a file: `keras-qat run`, or step by step `quantize`, `train`, `export`, `build-engine`.

`run` does everything. `quantize` makes a verified INT8 file of a `.keras` file, and `train` fine-tunes it. `export`
writes a `.keras` file as an ONNX file or SavedModel and compares it with the model, and `build-engine` builds the file
of an engine from an ONNX file.
"""

from collections.abc import Container, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from keras_qat import calibration, export, files, runtimes, targets, training, verify
from keras_qat import models as networks
from keras_qat import run as runs
from keras_qat.cli import shared
from keras_qat.cli.written import Output
from keras_qat.data import require_source
from keras_qat.errors import GateMissedError, StorageError, UserError
from keras_qat.text import size_text

_ALL = ("all",)


def _of(*owners: type, names: Container[str] = ()) -> list[runs.Option]:
    """The options of a run that these classes declare, or that have one of these names."""
    return [option for option in runs.OPTIONS.values() if option.owner in owners or option.name in names]


if TYPE_CHECKING:
    RunOptions = Any
    QuantizeOptions = Any
    TrainOptions = Any
    OnnxOptions = Any
else:
    _QUANTIZING = {
        *("target", "preprocessing", "task", "skip_bad", "overrides"),
        *("validation_images", "output", "run_folder", "seed"),
    }
    RunOptions = shared.option_group("RunOptions", runs.OPTIONS.values())
    QuantizeOptions = shared.option_group(
        "QuantizeOptions", _of(calibration.CalibrationOptions, export.ExportOptions, names=_QUANTIZING)
    )
    _TRAINING = _of(training.Recipe, training.Distillation, names={"augment", "devices"})
    # The seed also divides the images into those that train and those that judge, so a run keeps its own.
    TrainOptions = shared.option_group("TrainOptions", _TRAINING, optional=runs.OPTIONS, without={"seed"})
    OnnxOptions = shared.option_group("OnnxOptions", runs.declared(export.ExportOptions))


def run_command(
    *,
    options: Annotated[RunOptions, Parameter(name="*")] | None = None,
    models: Annotated[tuple[str, ...], Parameter(consume_multiple=True)] = (),
    as_json: Annotated[bool, shared.Json] = False,
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
    settings = runs.Settings.of(**shared.given(options))
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
    as_json: Annotated[bool, shared.Json] = False,
) -> None:
    """Quantize a trained Keras model to an ONNX file for an engine; check that the file computes what was simulated.

    Needs a folder of a few hundred images like those that the model will see. They need no labels; with labels, the
    accuracy is reported, too. The files and report.html are written to a folder that is named at the end.

    Examples:
        keras-qat quantize my.keras --data photos/

        keras-qat quantize my.keras --data photos/ --target tensorrt --preprocessing unit:96

    Args:
        model: The .keras or .h5 file.
        data: The images: a folder of images, of CLASS/IMAGE, or of train/CLASS/IMAGE and val/CLASS/IMAGE, a folder of
            TFRecord shards, tfds:NAME, or digits.
        options: How the model is quantized, and where the files go.
        as_json: Print JSON instead of the table.
    """
    if not files.is_model_path(model):
        if files.is_folder(model):
            files.require_model_file(model)
        raise UserError(
            f"A model is quantized from its .keras or .h5 file. Received: {str(model)!r}. Save it with "
            "`model.save('my.keras')`; networks by name, such as resnet50, go with `keras-qat run`."
        )
    settings = runs.Settings.of(
        model=str(model), data=data, skip_fine_tuning=True, skip_saved_model=True, **shared.given(options)
    )
    _require(settings, settings)
    _run([settings], as_json=as_json)


def train_command(
    run: Path,
    /,
    *,
    data: str | None = None,
    options: Annotated[TrainOptions, Parameter(name="*")] | None = None,
    as_json: Annotated[bool, shared.Json] = False,
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
    runs.require_files_for("train", folder)
    saved = folder.settings()
    shared.require_all((require_source, data), (files.require_creatable, run))
    moved = {} if data is None else {"data": data}
    settings = saved.changed(skip_fine_tuning=False, **moved, **shared.given(options))
    with shared.offering_skip_bad(shared.SKIP_ANEW, given=settings.skip_bad):
        shared.show_results([(runs.train(settings), run)], as_json=as_json)


def _require(settings: runs.Settings, *named: runs.Settings) -> None:
    """Check paths and names before modules are imported that take seconds to load."""
    shared.require_all(
        *((files.require_model_file, item.model_file) for item in named),
        (files.require_weights, settings.weights),
        (require_source, settings.data),
        (targets.find_target, settings.target),
        (files.read_text, settings.overrides),
        *((files.require_creatable, item.folder) for item in named),
    )


def _run(chosen: Sequence[runs.Settings], *, as_json: bool) -> None:
    with shared.offering_skip_bad(shared.SKIP_NOW, given=chosen[0].skip_bad):
        shared.show_results(((runs.run(settings), settings.folder) for settings in chosen), as_json=as_json)


def export_command(
    model: Path,
    /,
    *,
    target: str | None = None,
    output: Annotated[Path | None, Output((".onnx",), folder=True)] = None,
    form: Annotated[Literal["onnx", "saved-model"], Parameter(name="--format")] = "onnx",
    options: Annotated[OnnxOptions, Parameter(name="*")] | None = None,
    seed: int = 0,
    as_json: Annotated[bool, shared.Json] = False,
) -> None:
    """Write a Keras model, float or quantized, to a file to deploy; compare the file with the model.

    Both run on the same random numbers. A quantized ONNX file is compared tensor by tensor, any file by its outputs.

    Examples:
        keras-qat export qat.keras --target tensorrt

        keras-qat export baseline.keras --target openvino --precision fp16 --output deploy/baseline.onnx

        keras-qat export baseline.keras --format saved-model --output deploy/baseline

    Args:
        model: The .keras file. A preprocessing.json beside it, as a run leaves it, is written into the ONNX file.
        target: The engine to deploy to: onnxruntime, openvino or tensorrt. If not given, that of the run whose
            settings.json is beside the model, or onnxruntime.
        output: The file to write, or with `--format saved-model` the folder. If not given, it goes beside the model,
            unless it would replace a file of a run.
        form: The format: an ONNX file, or the folder of a TensorFlow SavedModel.
        options: Options of an ONNX file.
        seed: Seed of the random numbers.
        as_json: Print JSON instead of text.
    """
    shared.require_all(
        (files.require_model_file, model),
        (targets.find_target, target),
        (_require_file if form == "onnx" else _require_folder, output),
    )

    settings = export.ExportSettings(
        model=model,
        output=output,
        form=form,
        target=target or str(runs.option_of(model, "target") or "onnxruntime"),
        options=export.ExportOptions(**shared.given(options)),
        seed=seed,
    )
    exported = export.export_file(settings)
    shared.show(lambda: _describe_export(exported), exported.to_dict(), as_json=as_json)
    if exported.check.miss is not None:
        raise GateMissedError(exported.check.miss)


def _require_file(path: Path) -> None:
    """Refuse a folder in the place of an ONNX file, or a file in a folder that can't be written."""
    if files.is_folder(path):
        raise StorageError(f"The output is a file. Received: the folder {str(path)!r}. Name a file.")
    files.require_creatable(path.parent)


def _require_folder(path: Path) -> None:
    """Refuse a SavedModel in the place of a file, or in a folder that can't be written."""
    if files.is_file(path):
        raise StorageError(f"A SavedModel is a folder. Received: the file {str(path)!r}. Name a folder.")
    files.require_creatable(path.parent)


def _describe_export(exported: "export.Exported") -> str:
    check, kind = exported.check, "SavedModel"
    if exported.opset is not None:
        kind = f"ONNX opset {exported.opset}, {check.precision}, for {exported.target}"
    lines = [
        f"{exported.path}: {size_text(check.size_bytes)}, {kind}",
        f"Q/DQ pairs: {check.pairs}" if exported.form == "onnx" else "",
        *verify.describe_proof(check, exported.inputs),
    ]
    return "".join(f"{line}\n" for line in lines if line)


def build_engine_command(
    model: Path,
    /,
    *,
    engine: str,
    output: Annotated[Path | None, Output((".xml", ".engine", ".plan"))] = None,
    compute_capability: Annotated[tuple[str, ...], Parameter(negative=())] = (),
    min_batch: int | None = None,
    opt_batch: int | None = None,
    max_batch: int | None = None,
    as_json: Annotated[bool, shared.Json] = False,
) -> None:
    """Build an engine file from an ONNX file; print what was built, and the engine's warnings.

    Examples:
        keras-qat build-engine qat.onnx --engine tensorrt-rtx --compute-capability 8.6 --compute-capability 8.9

        keras-qat build-engine qat.onnx --engine tensorrt --opt-batch 8 --max-batch 32

        keras-qat build-engine qat.onnx --engine openvino --output ir/qat.xml

    Args:
        model: The ONNX file.
        engine: The engine to build for: openvino, tensorrt or tensorrt-rtx.
        output: The file to write. If not given, it goes beside the ONNX file, with the engine's suffix.
        compute_capability: A GPU to build for, such as 8.6. Repeat the option for several. TensorRT-RTX only.
        min_batch: The smallest batch that the engine takes. If not given, 1. TensorRT and TensorRT-RTX only.
        opt_batch: The batch at which the engine is fastest. If not given, the smallest.
        max_batch: The largest batch that the engine takes. If not given, 8, or `opt-batch` if that is more.
        as_json: Print JSON instead of text.
    """
    shared.require_all((files.require_onnx_file, model))

    build = runtimes.build_engine(
        model,
        output,
        engine=engine,
        compute_capabilities=compute_capability,
        batch=runtimes.BatchRange.of(min_batch, opt_batch, max_batch),
    )
    shared.show(lambda: _describe_build(build), {**asdict(build), "path": str(build.path)}, as_json=as_json)


def _describe_build(build: "runtimes.EngineBuild") -> str:
    capabilities = ", ".join(build.compute_capabilities)
    lines = [
        f"{build.path}: {size_text(build.size_bytes)}, built in {build.seconds:.1f} s by {build.version}"
        + (f" for compute capability {capabilities}" if capabilities else ""),
        *(f"warning: {warning}" for warning in build.warnings),
    ]
    return "".join(f"{line}\n" for line in lines)
