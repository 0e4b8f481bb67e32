"""`keras-qat build-engine`: from an ONNX file to the file of an engine."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from keras_qat.cli.options import Json, require_all, require_output_file
from keras_qat.cli.show import show
from keras_qat.paths import require_onnx_file
from keras_qat.sizes import size_text

if TYPE_CHECKING:
    from keras_qat.runtimes import EngineBuild


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
    """Build an engine file from an ONNX file; say what was built and what the engine warned of.

    Examples:
        keras-qat build-engine qat.onnx --engine tensorrt-rtx --compute-capability 8.6 --compute-capability 8.9

        keras-qat build-engine qat.onnx --engine tensorrt --opt-batch 8 --max-batch 32

        keras-qat build-engine qat.onnx --engine openvino --output ir/qat.xml

    Args:
        model: The ONNX file.
        engine: openvino, tensorrt or tensorrt-rtx.
        output: The file to write; beside the ONNX file, with the engine's suffix, if not given.
        compute_capability: A GPU to build for, such as 8.6; repeat it for several. TensorRT-RTX only.
        min_batch: The smallest batch that the engine takes: 1 if not given. TensorRT and TensorRT-RTX only.
        opt_batch: The batch that it is fastest at: the smallest if not given.
        max_batch: The largest batch: 8, or `opt-batch` if that is more, if not given.
        as_json: Print JSON instead of text.
    """
    require_all((require_onnx_file, model), (require_output_file, output))
    from keras_qat.runtimes import BatchRange, build_engine

    build = build_engine(
        model,
        output,
        engine=engine,
        compute_capabilities=compute_capability,
        batch=BatchRange.of(min_batch, opt_batch, max_batch),
    )
    show(lambda: _described(build), {**asdict(build), "path": str(build.path)}, as_json=as_json)


def _described(build: "EngineBuild") -> str:
    capabilities = ", ".join(build.compute_capabilities)
    lines = [
        f"{build.path}: {size_text(build.size_bytes)}, built in {build.seconds:.1f} s by {build.version}"
        + (f" for compute capability {capabilities}" if capabilities else ""),
        *(f"warning: {warning}" for warning in build.warnings),
    ]
    return "".join(f"{line}\n" for line in lines)
