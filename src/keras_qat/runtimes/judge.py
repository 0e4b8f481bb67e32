"""ONNX file → an engine's own file.

Which engine judges the file of a target: the one it is for, where that can run here.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from keras_qat.errors import StorageError, UserError
from keras_qat.files import require_onnx_file, require_writable
from keras_qat.runtimes.registry import ENGINES, find_engine
from keras_qat.runtimes.runtime import BatchRange, BuildOptions, Runtime


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


JUDGES: Mapping[str, tuple[str, ...]] = {
    "onnxruntime": ("onnxruntime",),
    "openvino": ("openvino", "onnxruntime"),
    "tensorrt": ("tensorrt", "onnxruntime"),
}
"""{target: engines, the best judge first}. All files mean the same in ONNX Runtime, only slower."""

_ANY_TARGET = ("onnxruntime",)


@dataclass(frozen=True)
class Judge:
    """The engine that runs the deployed files.

    Args:
        engine: its name.
        passed_over: why better judges can't run here; empty if there are none.
    """

    engine: str
    passed_over: tuple[str, ...] = ()

    def open(self, path: Path, *, max_batch: int) -> Runtime:
        """Open an ONNX file; an engine that needs a file of its own gets it built beside the ONNX file.

        Args:
            path: the ONNX file.
            max_batch: the largest batch that will be run.

        Raises:
            UserError: as `open_runtime` and `build_engine`.
        """
        engine = find_engine(self.engine)
        if path.suffix not in engine.suffixes:
            path = build_engine(path, engine=self.engine, batch=BatchRange(max=max_batch)).path
        return engine.open(path)

    def describe(self, runtime: Runtime) -> str:
        """Which engine it was, and why none better, for the report."""
        reasons = "".join(f", not {reason}" for reason in self.passed_over)
        return f"{runtime.engine} ({runtime.device}){reasons}"


def choose_judge(target: str) -> Judge:
    """The best judge of a target's files that can run on this machine, and computes them right there.

    Args:
        target: its name; one that no table names is judged by ONNX Runtime.

    Raises:
        UserError: none can run here.

    Example:
        >>> choose_judge("onnxruntime")
        Judge(engine='onnxruntime', passed_over=())
    """
    passed_over: list[str] = []
    candidates = JUDGES.get(target, _ANY_TARGET)
    for name in candidates:
        engine = find_engine(name)
        reason = engine.why_not() or engine.why_inexact()
        if reason is None:
            return Judge(name, tuple(passed_over))
        passed_over.append(f"{engine.title}: {reason}")
    raise UserError(
        f"No engine here can judge files for {target}. Received: {'; '.join(passed_over)}. "
        f"Install it: pip install 'keras-qat[{candidates[0]}]'"
    )
