"""The commands that write files to deploy.

`keras-qat export` writes a `.keras` file as an ONNX file or SavedModel, and compares it with the model. `keras-qat
build-engine` builds the file of an engine from an ONNX file.
"""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from keras_qat import export, run, runtimes, verify
from keras_qat.cli.shared import Json, given, option_group, require_all, require_output_file, show
from keras_qat.errors import GateMissedError, StorageError
from keras_qat.files import is_file, require_creatable, require_model_file, require_onnx_file
from keras_qat.targets import find_target
from keras_qat.text import size_text

if TYPE_CHECKING:
    OnnxOptions = Any
else:
    OnnxOptions = option_group("OnnxOptions", run.declared(export.ExportOptions))


def export_command(
    model: Path,
    /,
    *,
    target: str | None = None,
    output: Path | None = None,
    form: Annotated[Literal["onnx", "saved-model"], Parameter(name="--format")] = "onnx",
    options: Annotated[OnnxOptions, Parameter(name="*")] | None = None,
    seed: int = 0,
    as_json: Annotated[bool, Json] = False,
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
    require_all(
        (require_model_file, model),
        (find_target, target),
        (require_output_file if form == "onnx" else _require_folder, output),
    )

    settings = export.ExportSettings(
        model=model,
        output=output,
        form=form,
        target=target or str(run.option_of(model, "target") or "onnxruntime"),
        options=export.ExportOptions(**given(options)),
        seed=seed,
    )
    if output is None:
        run.require_no_run_file(settings.path)
    exported = export.export_file(settings)
    show(lambda: _describe_export(exported), exported.to_dict(), as_json=as_json)
    if exported.check.miss is not None:
        raise GateMissedError(exported.check.miss)


def _require_folder(path: Path) -> None:
    """Refuse a SavedModel in the place of a file, or in a folder that can't be written."""
    if is_file(path):
        raise StorageError(f"A SavedModel is a folder. Received: the file {str(path)!r}. Name a folder.")
    require_creatable(path.parent)


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
    output: Path | None = None,
    compute_capability: Annotated[tuple[str, ...], Parameter(negative=())] = (),
    min_batch: int | None = None,
    opt_batch: int | None = None,
    max_batch: int | None = None,
    as_json: Annotated[bool, Json] = False,
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
    require_all((require_onnx_file, model), (require_output_file, output))

    build = runtimes.build_engine(
        model,
        output,
        engine=engine,
        compute_capabilities=compute_capability,
        batch=runtimes.BatchRange.of(min_batch, opt_batch, max_batch),
    )
    show(lambda: _describe_build(build), {**asdict(build), "path": str(build.path)}, as_json=as_json)


def _describe_build(build: "runtimes.EngineBuild") -> str:
    capabilities = ", ".join(build.compute_capabilities)
    lines = [
        f"{build.path}: {size_text(build.size_bytes)}, built in {build.seconds:.1f} s by {build.version}"
        + (f" for compute capability {capabilities}" if capabilities else ""),
        *(f"warning: {warning}" for warning in build.warnings),
    ]
    return "".join(f"{line}\n" for line in lines)
