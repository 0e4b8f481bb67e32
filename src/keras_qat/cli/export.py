"""`keras-qat export`: from a `.keras` file to a file to deploy, compared with it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from keras_qat.cli.options import Flag, Json, require_all, require_output_file
from keras_qat.cli.show import show
from keras_qat.errors import GateMissedError, StorageError
from keras_qat.file_system import is_file
from keras_qat.paths import require_model_file
from keras_qat.sizes import size_text
from keras_qat.storage import require_creatable
from keras_qat.targets import find_target
from keras_qat.types import Precision

if TYPE_CHECKING:
    from keras_qat.export_file import Exported


def export_command(
    model: Path,
    /,
    *,
    target: str | None = None,
    output: Path | None = None,
    form: Annotated[Literal["onnx", "saved-model"], Parameter(name="--format")] = "onnx",
    opset: int | None = None,
    precision: Precision = "fp32",
    embed_preprocessing: Annotated[bool, Flag] = False,
    seed: int = 0,
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Write a Keras model, float or quantized, to a file to deploy; compare the file with the model.

    Both compute the same random numbers. A quantized ONNX file is compared tensor by tensor, any file by its outputs.

    Examples:
        keras-qat export qat.keras --target tensorrt

        keras-qat export baseline.keras --target openvino --precision fp16 --output deploy/baseline.onnx

        keras-qat export baseline.keras --format saved-model --output deploy/baseline

    Args:
        model: The .keras file. A preprocessing.json beside it, as a run leaves it, is written into the ONNX file.
        target: The engine to deploy to: onnxruntime, openvino or tensorrt; that of the run whose settings.json is
            beside the model, or onnxruntime, if not given.
        output: The file to write, or with `--format saved-model` the folder; beside the model if not given, where that
            replaces no file of a run.
        form: An ONNX file, or the folder of a TensorFlow SavedModel.
        opset: ONNX operator set, 13 to 21; 17 if not given, 19 for fp16.
        precision: Floating-point type of what an ONNX file doesn't quantize: fp32 or fp16.
        embed_preprocessing: The ONNX file reads uint8 RGB pixels and normalizes them itself, as that preprocessing.json
            says.
        seed: Of the random numbers.
        as_json: Print JSON instead of text.
    """
    require_all(
        (require_model_file, model),
        (find_target, target),
        (require_output_file if form == "onnx" else _require_folder, output),
    )
    from keras_qat.export_file import ExportSettings, export_file
    from keras_qat.saved_run import setting_beside

    found = export_file(
        ExportSettings(
            model=model,
            output=output,
            form=form,
            target=target or str(setting_beside(model, "target") or "onnxruntime"),
            opset=opset,
            precision=precision,
            embed_preprocessing=embed_preprocessing,
            seed=seed,
        )
    )
    show(lambda: _described(found), found.to_dict(), as_json=as_json)
    if found.check.miss is not None:
        raise GateMissedError(found.check.miss)


def _require_folder(path: Path) -> None:
    """A SavedModel may replace another, but no file; the folder that it lies in must be writable."""
    if is_file(path):
        raise StorageError(f"A SavedModel is a folder. Received: the file {str(path)!r}. Name a folder.")
    require_creatable(path.parent)


def _described(found: "Exported") -> str:
    from keras_qat.verify_files import describe_proof

    check = found.check
    kind = "SavedModel" if found.opset is None else f"ONNX opset {found.opset}, {check.precision}, for {found.target}"
    lines = [
        f"{found.path}: {size_text(check.size_bytes)}, {kind}",
        f"Q/DQ pairs: {check.pairs}" if found.form == "onnx" else "",
        *describe_proof(check, found.inputs),
    ]
    return "".join(f"{line}\n" for line in lines if line)
