"""The engines by name: what files they open, how, what builds such a file, and why one can't run here."""

import importlib.util
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from keras_qat.errors import UserError
from keras_qat.files import require_engine_model
from keras_qat.machine import read_cpu
from keras_qat.runtimes.keras_runtime import KerasRuntime, SavedModelRuntime
from keras_qat.runtimes.onnxruntime_runtime import OnnxRuntime, why_no_cuda
from keras_qat.runtimes.openvino_runtime import OpenVINORuntime, build_ir
from keras_qat.runtimes.runtime import BuildOptions, Built, Runtime
from keras_qat.runtimes.tensorrt_build import TENSORRT, TENSORRT_RTX, Flavor, build_plan
from keras_qat.runtimes.tensorrt_runtime import TensorRTRuntime, why_no_gpu

Open = Callable[..., Runtime]
Build = Callable[[Path, Path, BuildOptions], Built]


_X86 = frozenset({"x86_64", "amd64", "i386", "i686"})


def _always() -> str | None:
    return None


@dataclass(frozen=True)
class Engine:
    """One engine.

    Args:
        title: as its makers write it.
        suffixes: of the files that it opens; what it builds gets the first. None: it opens folders.
        open: path → runtime; with `threads`, an int or `None`, if it takes threads.
        build: ONNX file → its own file; `None` if it runs the ONNX file itself.
        why_not: the reason why it can't run on this machine, or `None` if it can.
        why_inexact: the reason why it computes INT8 files otherwise than they say on this machine, or `None`.
        magic: how its files begin, where the suffix doesn't tell.
        takes_threads: whether the number of threads can be set for one model.
    """

    title: str
    suffixes: tuple[str, ...]
    open: Open
    build: Build | None = None
    why_not: Callable[[], str | None] = _always
    why_inexact: Callable[[], str | None] = _always
    magic: bytes = b""
    takes_threads: bool = False

    def opens(self, path: Path) -> bool:
        """Whether this is a file of its kind, or a folder for an engine of folders."""
        folder = path.is_dir()
        return not folder and path.suffix in self.suffixes if self.suffixes else folder


def _why_not_installed(module: str) -> str | None:
    return None if importlib.util.find_spec(module) else f"the package {module} is not installed"


def _why_not_on_gpu(module: str) -> str | None:
    return _why_not_installed(module) or why_no_gpu()


def _why_saturated() -> str | None:
    """OpenVINO's kernels for CPUs without VNNI add pairs of products in 16 bits.

    ResNet50's scores fell from 32 dB of those simulated to 10 dB, and one class in five was another (OpenVINO 2026.4 on
    AVX2). https://docs.openvino.ai/latest/pot_saturation_issue.html
    """
    if platform.machine().lower() not in _X86 or read_cpu().vnni is not False:
        return None
    return "its INT8 kernels saturate on a CPU without VNNI"


def _tensorrt(flavor: Flavor, magic: bytes) -> Engine:
    return Engine(
        flavor.title,
        (".engine", ".plan"),
        partial(TensorRTRuntime, flavor=flavor),
        partial(build_plan, flavor),
        partial(_why_not_on_gpu, flavor.module),
        magic=magic,
    )


ENGINES: Mapping[str, Engine] = {
    "keras": Engine("Keras", (".keras",), KerasRuntime.load),
    "onnxruntime": Engine("ONNX Runtime", (".onnx",), OnnxRuntime, takes_threads=True),
    "openvino": Engine(
        "OpenVINO",
        (".xml", ".onnx"),
        OpenVINORuntime,
        build_ir,
        partial(_why_not_installed, "openvino"),
        _why_saturated,
        takes_threads=True,
    ),
    TENSORRT.name: _tensorrt(TENSORRT, b"ftrt"),
    TENSORRT_RTX.name: _tensorrt(TENSORRT_RTX, b"vtrt"),
    "onnxruntime-cuda": Engine(
        "ONNX Runtime on CUDA", (".onnx",), partial(OnnxRuntime, device="cuda"), why_not=why_no_cuda
    ),
    "tensorflow": Engine("TensorFlow", (), SavedModelRuntime, why_not=partial(_why_not_installed, "tensorflow")),
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


def open_runtime(path: str | Path, engine: str | None = None, threads: int | None = None) -> Runtime:
    """Open a model file, or a SavedModel's folder, in an engine.

    Args:
        path: a .keras, .onnx, .xml, .engine or .plan file, or the folder of a SavedModel.
        engine: a name of `ENGINES`; by the file if not given.
        threads: threads of one inference, ONNX Runtime and OpenVINO on the CPU only; all cores if not given.

    Raises:
        StorageError: the file is missing, corrupt, or was built by another version.
        UserError: the engine is unknown, not installed, can't run here, doesn't open such files, or takes no threads.
    """
    path = Path(path)
    require_engine_model(path)
    chosen = _engine_of(path) if engine is None else find_engine(engine)
    if not chosen.opens(path):
        kind = " and ".join(chosen.suffixes) + " files" if chosen.suffixes else "the folders of SavedModels"
        raise UserError(
            f"{chosen.title} opens {kind}. Received: {str(path)!r}. "
            + ("Name another engine." if chosen.build is None else "Build one: keras-qat build-engine MODEL.onnx")
        )
    _check_threads(chosen, threads)
    return chosen.open(path, threads=threads) if chosen.takes_threads else chosen.open(path)


def _check_threads(engine: Engine, threads: int | None) -> None:
    if threads is None:
        return
    if not engine.takes_threads:
        able = " or ".join(other.title for other in ENGINES.values() if other.takes_threads)
        raise UserError(
            f"{engine.title} takes no number of threads for one model. Received: threads={threads}. "
            f"Leave it out, or run the model in {able}."
        )
    if threads < 1:
        raise UserError(f"A model needs at least 1 thread. Received: threads={threads}. Give 1 or more.")


def _engine_of(path: Path) -> Engine:
    able = [engine for engine in ENGINES.values() if engine.opens(path)]
    if not able:
        known = dict.fromkeys(suffix for engine in ENGINES.values() for suffix in engine.suffixes)
        raise UserError(
            f"No engine opens such a file. Received: {str(path)!r}. Known suffixes: {', '.join(known)}; or the folder "
            "of a SavedModel."
        )
    if path.is_dir():
        return able[0]
    with path.open("rb") as file:
        start = file.read(4)
    return next((engine for engine in able if engine.magic and engine.magic == start), able[0])
