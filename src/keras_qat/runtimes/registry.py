"""The engines by name: what files they open, how, what builds such a file, and why one can't run here."""

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from keras_qat.errors import StorageError, UserError
from keras_qat.runtimes.keras_runtime import KerasRuntime
from keras_qat.runtimes.onnxruntime_runtime import OnnxRuntime
from keras_qat.runtimes.openvino import OpenVINORuntime, build_ir
from keras_qat.runtimes.options import BuildOptions, Built
from keras_qat.runtimes.runtime import Runtime
from keras_qat.runtimes.tensorrt import TENSORRT, TENSORRT_RTX, Flavor, TensorRTRuntime, build_plan, why_no_gpu

Open = Callable[[Path], Runtime]
Build = Callable[[Path, Path, BuildOptions], Built]


def _always() -> str | None:
    return None


@dataclass(frozen=True)
class Engine:
    """One engine.

    Args:
        title: as its makers write it.
        suffixes: of the files that it opens; what it builds gets the first.
        open: path → runtime.
        build: ONNX file → its own file; `None` if it runs the ONNX file itself.
        why_not: the reason why it can't run on this machine, or `None` if it can.
        magic: how its files begin, where the suffix doesn't tell.
    """

    title: str
    suffixes: tuple[str, ...]
    open: Open
    build: Build | None = None
    why_not: Callable[[], str | None] = _always
    magic: bytes = b""


def _why_not_installed(module: str) -> str | None:
    return None if importlib.util.find_spec(module) else f"the package {module} is not installed"


def _why_not_on_gpu(module: str) -> str | None:
    return _why_not_installed(module) or why_no_gpu()


def _tensorrt(flavor: Flavor, magic: bytes) -> Engine:
    return Engine(
        flavor.title,
        (".engine", ".plan"),
        partial(TensorRTRuntime, flavor=flavor),
        partial(build_plan, flavor),
        partial(_why_not_on_gpu, flavor.module),
        magic,
    )


ENGINES: Mapping[str, Engine] = {
    "keras": Engine("Keras", (".keras",), KerasRuntime.load),
    "onnxruntime": Engine("ONNX Runtime", (".onnx",), OnnxRuntime),
    "openvino": Engine(
        "OpenVINO",
        (".xml", ".onnx"),
        OpenVINORuntime,
        build_ir,
        partial(_why_not_installed, "openvino"),
    ),
    TENSORRT.name: _tensorrt(TENSORRT, b"ftrt"),
    TENSORRT_RTX.name: _tensorrt(TENSORRT_RTX, b"vtrt"),
}
"""The first that opens a suffix is the one a file goes to when no engine is named."""


def find_engine(name: str) -> Engine:
    """The engine of that name.

    Raises:
        UserError: no such engine.

    Example:
        >>> find_engine("openvino").suffixes
        ('.xml', '.onnx')
    """
    if name not in ENGINES:
        raise UserError(f"Unknown engine. Received: {name!r}. Choose one of: {', '.join(ENGINES)}.")
    return ENGINES[name]


def open_runtime(path: str | Path, *, engine: str | None = None) -> Runtime:
    """Open a model file in an engine.

    Args:
        path: a .keras, .onnx, .xml, .engine or .plan file.
        engine: keras, onnxruntime, openvino, tensorrt or tensorrt-rtx; by the file if not given.

    Raises:
        StorageError: the file is missing, corrupt, or was built by another version.
        UserError: the engine is unknown, not installed, can't run here, or doesn't open such files.
    """
    path = Path(path)
    if not path.is_file():
        raise StorageError(f"There is no model file of that name. Received: {str(path)!r}. Export or build it first.")
    chosen = _engine_of(path) if engine is None else find_engine(engine)
    if path.suffix not in chosen.suffixes:
        raise UserError(
            f"{chosen.title} opens {' and '.join(chosen.suffixes)} files. Received: {str(path)!r}. "
            + ("Name another engine." if chosen.build is None else "Build one: keras-qat build-engine MODEL.onnx")
        )
    return chosen.open(path)


def _engine_of(path: Path) -> Engine:
    able = [engine for engine in ENGINES.values() if path.suffix in engine.suffixes]
    if not able:
        known = dict.fromkeys(suffix for engine in ENGINES.values() for suffix in engine.suffixes)
        raise UserError(f"No engine opens such a file. Received: {str(path)!r}. Known suffixes: {', '.join(known)}.")
    with path.open("rb") as file:
        start = file.read(4)
    return next((engine for engine in able if engine.magic and engine.magic == start), able[0])
