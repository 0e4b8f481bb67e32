"""The functions of each engine: how it opens model files and builds its own, why it can't run here, and who judges.

The facts about engines are in `keras_qat.targets`. The files of a target are judged by the engine that they are for, if
it can run here and computes them exactly.
"""

import importlib.util
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from keras_qat import files, onnx, targets
from keras_qat.errors import StorageError, UserError
from keras_qat.runtimes import (
    keras_runtime,
    onnxruntime_runtime,
    openvino_runtime,
    runtime,
    tensorrt_build,
    tensorrt_runtime,
)
from keras_qat.runtimes.runtime import BatchRange, Runtime
from keras_qat.targets import find_engine, judges_of

Open = Callable[..., runtime.Runtime]
Build = Callable[[Path, Path, runtime.BuildOptions], runtime.Built]
Reason = Callable[[], str | None]


def _no_reason() -> str | None:
    return None


@dataclass(frozen=True)
class Adapter:
    """The functions that attach one engine.

    Args:
        engine: the facts about it.
        open: opens a path as a runtime; takes `threads`, an int or `None`, if the engine takes threads, and `trust`, a
            bool, if its files run code.
        build: builds a file of the engine from an ONNX file; `None` if the engine runs the ONNX file itself.
        open_graph: opens an ONNX file in memory, to run it in the engine's arithmetic; `None` if it can't.
        why_unusable: why the engine can't run on this machine although its package is installed, or `None` if it can.
        why_inexact: why it computes INT8 files otherwise than they say on this machine, or `None` if it doesn't.
    """

    engine: targets.Engine
    open: Open
    build: Build | None = None
    open_graph: Callable[[bytes], runtime.RunGraph] | None = None
    why_unusable: Reason = _no_reason
    why_inexact: Reason = _no_reason

    def opened(self, path: Path, *, threads: int | None = None, trust: bool = False) -> runtime.Runtime:
        """Open a path with those of the options that the engine takes.

        Raises:
            StorageError: If the engine can't open the file.
            UserError: If it can't run here, or the file is not trusted.
        """
        options = {"threads": threads} if self.engine.takes_threads else {}
        options |= {"trust": trust} if self.engine.runs_code else {}
        remedy = "Export or build it again, or name another engine; `keras-qat doctor` examines an ONNX file."
        with runtime.engine_failure(f"{self.engine.title} can't open the model", str(path), StorageError, remedy):
            opened = self.open(path, **options)
        opened.source = str(path)
        return opened

    def why_not(self) -> str | None:
        """Why the engine can't run on this machine, or `None` if it can."""
        if importlib.util.find_spec(self.engine.module) is None:
            return f"the package {self.engine.module} is not installed"
        return self.why_unusable()


def _tensorrt(name: str) -> Adapter:
    engine = targets.find_engine(name)
    return Adapter(
        engine,
        partial(tensorrt_runtime.TensorRTRuntime, engine=engine),
        partial(tensorrt_build.build_plan, engine),
        why_unusable=tensorrt_runtime.why_no_gpu,
    )


ADAPTERS: Mapping[str, Adapter] = {
    adapter.engine.name: adapter
    for adapter in (
        Adapter(targets.find_engine("keras"), keras_runtime.KerasRuntime.load),
        Adapter(
            targets.find_engine("onnxruntime"),
            onnxruntime_runtime.OnnxRuntime,
            open_graph=onnxruntime_runtime.open_graph,
        ),
        Adapter(
            targets.find_engine("openvino"),
            openvino_runtime.OpenVINORuntime,
            openvino_runtime.build_ir,
            openvino_runtime.open_graph,
            why_inexact=openvino_runtime.why_saturated,
        ),
        _tensorrt("tensorrt"),
        _tensorrt("tensorrt-rtx"),
        Adapter(
            targets.find_engine("onnxruntime-cuda"),
            partial(onnxruntime_runtime.OnnxRuntime, device="cuda"),
            why_unusable=onnxruntime_runtime.why_no_cuda,
        ),
        Adapter(targets.find_engine("tensorflow"), keras_runtime.SavedModelRuntime),
    )
}
"""The adapter of every engine of `keras_qat.targets`."""


def open_runtime(
    path: str | Path, engine: str | None = None, threads: int | None = None, *, trust: bool = False
) -> runtime.Runtime:
    """Open a model file, or a SavedModel's folder, in an engine.

    Args:
        path: a .keras, .onnx, .xml, .engine or .plan file, or the folder of a SavedModel.
        engine: name of the engine, a key of `ADAPTERS`; chosen by the file if not given.
        threads: threads of one inference, for ONNX Runtime and OpenVINO on the CPU only; all cores if not given.
        trust: whether code in the file may run, even if this tool did not write it. SavedModels and TensorRT's engines
            are code; other files are not.

    Raises:
        StorageError: If the file is missing, corrupt, or was built by another version of the engine.
        UserError: If the engine is unknown, not installed, can't run here, doesn't open such files, or takes no
            threads; or if the file is not trusted.
    """
    path = Path(path)
    files.require_engine_model(path)
    chosen = _engine_of(path) if engine is None else targets.find_engine(engine)
    adapter = ADAPTERS[chosen.name]
    if not chosen.accepts(path):
        kind = " and ".join(chosen.suffixes) + " files" if chosen.suffixes else "the folders of SavedModels"
        raise UserError(
            f"{chosen.title} opens {kind}. Received: {str(path)!r}. "
            + ("Name another engine." if adapter.build is None else "Build one: keras-qat build-engine MODEL.onnx")
        )
    _check_threads(chosen, threads)
    return adapter.opened(path, threads=threads, trust=trust)


def open_graph(content: bytes, target: str) -> runtime.RunGraph:
    """Open an ONNX file in memory, in the arithmetic of the engine that it is for.

    Args:
        content: the file.
        target: the file's target; ONNX Runtime runs it if it is "", or if its engine can't do that here.

    Returns:
        A function from {name: array} of all inputs to the outputs, in the order of the file.

    Raises:
        StorageError: If the engine can't open it.
    """
    for name in (*(judges_of(target) if target else ()), "onnxruntime"):
        adapter = ADAPTERS[name]
        if adapter.open_graph is not None and (adapter.why_not() or adapter.why_inexact()) is None:
            remedy = "Export the file again."
            with runtime.engine_failure(
                f"{adapter.engine.title} can't open the model", f"{len(content)} bytes", StorageError, remedy
            ):
                return adapter.open_graph(content)
    raise UserError(
        "No engine here runs a part of a file. Received: no ONNX Runtime. Install it: pip install onnxruntime"
    )


@dataclass(frozen=True)
class EngineBuild:
    """What was built.

    Args:
        path: the file to open; OpenVINO's weights lie beside it.
        engine: name of the engine.
        version: the engine and its version; TensorRT opens its file only in that one.
        compute_capabilities: the GPUs that it was built for; empty if none were named.
        seconds: how long it took.
        size_bytes: size of all files.
        warnings: the warnings in the engine's log.
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
    batch: runtime.BatchRange | None = None,
) -> EngineBuild:
    """Build an engine file from an ONNX file. Nothing is printed, and an old file stays if the build fails.

    Args:
        source: an ONNX file.
        output: where to write; beside the ONNX file, with the engine's suffix, if not given.
        engine: openvino, tensorrt or tensorrt-rtx.
        compute_capabilities: of the GPUs, such as "8.6"; TensorRT-RTX only.
        batch: batch sizes, TensorRT and TensorRT-RTX only; 1 to 8, fastest at 1, if not given.

    Raises:
        StorageError: If the ONNX file is missing or corrupt, or the output can't be written.
        UnsupportedModelError: If the engine can't run the network.
        UserError: If the engine is unknown, not installed or needs a GPU, or an option is wrong.
    """
    source = Path(source)
    chosen = targets.find_engine(engine)
    build = ADAPTERS[engine].build
    if build is None:
        able = ", ".join(name for name, adapter in ADAPTERS.items() if adapter.build is not None)
        raise UserError(
            f"{chosen.title} has no engine files: it runs what was exported. Received: {engine!r}. "
            f"Choose one of: {able}."
        )
    files.require_onnx_file(source)
    output = source.with_suffix(chosen.suffixes[0]) if output is None else Path(output)
    if output.is_dir() or output.resolve() == source.resolve():
        raise StorageError(f"The engine needs a file of its own. Received: {str(output)!r}. Name another output.")
    # OpenVINO writes its weights beside the graph, and the ONNX file may have its own under the same name.
    external = [data.path for data in onnx.read_onnx_file(source).external]
    files.require_apart([output, output.with_suffix(".bin")], external)
    files.require_writable(output.parent)
    start = time.perf_counter()
    built = build(source, output, runtime.BuildOptions(compute_capabilities, batch))
    return EngineBuild(
        path=output,
        engine=engine,
        version=built.version,
        compute_capabilities=tuple(dict.fromkeys(compute_capabilities)),
        seconds=time.perf_counter() - start,
        size_bytes=sum(file.stat().st_size for file in built.files),
        warnings=built.warnings,
    )


def _engine_of(path: Path) -> targets.Engine:
    """The engine that opens a path if none is named."""
    able = [engine for engine in targets.ENGINES.values() if engine.accepts(path)]
    if not able:
        known = dict.fromkeys(suffix for engine in targets.ENGINES.values() for suffix in engine.suffixes)
        raise UserError(
            f"No engine opens such a file. Received: {str(path)!r}. Known suffixes: {', '.join(known)}; or the folder "
            "of a SavedModel."
        )
    if path.is_dir():
        return able[0]
    with files.open_file(path) as file:
        start = file.read(4)
    return next((engine for engine in able if engine.magic and engine.magic == start), able[0])


def _check_threads(engine: targets.Engine, threads: int | None) -> None:
    if threads is None:
        return
    if not engine.takes_threads:
        able = " or ".join(other.title for other in targets.ENGINES.values() if other.takes_threads)
        raise UserError(
            f"{engine.title} takes no number of threads for one model. Received: threads={threads}. "
            f"Leave it out, or run the model in {able}."
        )
    runtime.threads_or_all(threads)


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
        """Open an ONNX file. If the engine needs a file of its own, that is built in a temporary folder.

        A file of the engine that lies beside the ONNX file is the user's, and stays as it is.

        Args:
            path: the ONNX file.
            max_batch: the largest batch that will be run.

        Raises:
            UserError: As from `open_runtime` and `build_engine`.
        """
        adapter = ADAPTERS[self.engine]
        if path.suffix in adapter.engine.suffixes:
            return adapter.opened(path)
        # The engines that have files of their own read them into memory when they are opened.
        with tempfile.TemporaryDirectory(prefix="keras-qat-engine-") as folder:
            own = Path(folder) / f"model{adapter.engine.suffixes[0]}"
            build_engine(path, own, engine=self.engine, batch=BatchRange(max=max_batch))
            opened = adapter.opened(own, trust=True)
        opened.source = str(path)
        return opened

    def describe(self, runtime: Runtime) -> str:
        """Which engine judged, and why no better one did, for the report."""
        reasons = "".join(f", not {reason}" for reason in self.passed_over)
        return f"{runtime.engine} ({runtime.device}){reasons}"


def choose_judge(target: str) -> Judge:
    """The best judge of a target's files that can run on this machine, and computes them exactly here.

    Args:
        target: its name; one that is not registered is judged by ONNX Runtime.

    Raises:
        UserError: If no judge can run here.

    Example:
        >>> choose_judge("onnxruntime")
        Judge(engine='onnxruntime', passed_over=())
    """
    passed_over: list[str] = []
    candidates = judges_of(target)
    for name in candidates:
        adapter = ADAPTERS[name]
        reason = adapter.why_not() or adapter.why_inexact()
        if reason is None:
            return Judge(name, tuple(passed_over))
        passed_over.append(f"{adapter.engine.title}: {reason}")
    raise UserError(
        f"No engine here can judge files for {target}. Received: {'; '.join(passed_over)}. "
        f"Install it: pip install {find_engine(candidates[0]).install}"
    )
