"""ONNX file → an engine's own file."""

import time
from dataclasses import dataclass
from pathlib import Path

from keras_qat.errors import StorageError, UserError
from keras_qat.paths import require_onnx_file
from keras_qat.runtimes.options import BatchRange, BuildOptions
from keras_qat.runtimes.registry import ENGINES, find_engine
from keras_qat.storage import require_writable


@dataclass(frozen=True)
class EngineBuild:
    """What was built.

    Args:
        path: the file to open; OpenVINO's weights lie beside it.
        engine: name of the engine.
        version: the engine and its version; TensorRT opens its file only in that one.
        compute_capabilities: the GPUs it was built for; empty if none were named.
        seconds: how long it took.
        size_bytes: of all files.
        warnings: what the engine's log warned of.
    """

    path: Path
    engine: str
    version: str
    compute_capabilities: tuple[str, ...]
    seconds: float
    size_bytes: int
    warnings: tuple[str, ...]


def build_engine(
    source: str | Path,
    output: str | Path | None = None,
    *,
    engine: str,
    compute_capabilities: tuple[str, ...] = (),
    batch: BatchRange | None = None,
) -> EngineBuild:
    """Build an engine file; nothing is printed, and an old file stays if the build fails.

    Args:
        source: an ONNX file.
        output: where to write; beside the ONNX file, with the engine's suffix, if not given.
        engine: openvino, tensorrt or tensorrt-rtx.
        compute_capabilities: of the GPUs, such as "8.6"; TensorRT-RTX only.
        batch: batch sizes, TensorRT and TensorRT-RTX only; 1 to 8, fastest at 1, if not given.

    Raises:
        StorageError: the ONNX file is missing or corrupt, or the output can't be written.
        UnsupportedModelError: the engine can't run the network.
        UserError: the engine is unknown, not installed or needs a GPU, or an option is wrong.
    """
    source = Path(source)
    chosen = find_engine(engine)
    if chosen.build is None:
        able = ", ".join(name for name, other in ENGINES.items() if other.build is not None)
        raise UserError(
            f"{chosen.title} has no engine files: it runs what was exported. Received: {engine!r}. "
            f"Choose one of: {able}."
        )
    require_onnx_file(source)
    output = source.with_suffix(chosen.suffixes[0]) if output is None else Path(output)
    if output.is_dir() or output.resolve() == source.resolve():
        raise StorageError(f"The engine needs a file of its own. Received: {str(output)!r}. Name another output.")
    require_writable(output.parent)
    start = time.perf_counter()
    built = chosen.build(source, output, BuildOptions(compute_capabilities, batch))
    return EngineBuild(
        path=output,
        engine=engine,
        version=built.version,
        compute_capabilities=tuple(dict.fromkeys(compute_capabilities)),
        seconds=time.perf_counter() - start,
        size_bytes=sum(file.stat().st_size for file in built.files),
        warnings=built.warnings,
    )
