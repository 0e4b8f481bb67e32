"""The engines of this machine: installed or not, and what each can do here. Nothing heavy is imported.

This machine as far as quantization is concerned: a frozen value.
"""

import importlib.util
import json
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from keras_qat._version import __version__
from keras_qat.machine import (
    EXTRAS,
    TENSORFLOW,
    TENSORRT,
    TENSORRT_RTX,
    Cpu,
    Disk,
    Gpu,
    disks,
    first_installed,
    memory,
    read_cpu,
    read_gpus,
    usable_cores,
    version_of,
)

State = Literal["ready", "builds only", "can't run here", "not installed"]

Reason = Callable[[Sequence[Gpu]], str | None]
"""Why an engine that is installed can't run here; `None` if it can."""


@dataclass(frozen=True)
class EngineState:
    """One engine on this machine.

    Args:
        name: as in `--engine`.
        title: as its makers write it.
        version: that is installed; `None` if none is.
        state: what can be done with it here.
        opens: the files that it runs.
        remedy: what to do to have it; "" if it is ready.
    """

    name: str
    title: str
    version: str | None
    state: State
    opens: str
    remedy: str


@dataclass(frozen=True)
class _Known:
    title: str
    opens: str
    packages: tuple[str, ...]
    install: str
    why_not: Reason
    builds_anyway: bool = False


def _always(_: Sequence[Gpu]) -> str | None:
    return None


def _why_no_backend(_: Sequence[Gpu]) -> str | None:
    if first_installed((*TENSORFLOW, "jax", "torch")):
        return None
    return "no backend is installed: pip install 'keras-qat[cpu]'"


def _why_no_gpu(gpus: Sequence[Gpu]) -> str | None:
    if not gpus:
        return "nvidia-smi finds no GPU"
    if first_installed(("cuda-python", "cuda-bindings")) is None:
        return "it is run through cuda-python: pip install cuda-python"
    return None


def _why_no_cuda(gpus: Sequence[Gpu]) -> str | None:
    if not gpus:
        return "nvidia-smi finds no GPU"
    if importlib.util.find_spec("onnxruntime") is None:
        return "the module onnxruntime is missing: pip install onnxruntime-gpu again"
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        return None
    return "this build has no CUDA: pip uninstall onnxruntime, then install onnxruntime-gpu again"


_KNOWN = {
    "onnxruntime": _Known(
        "ONNX Runtime", ".onnx on the CPU", ("onnxruntime", "onnxruntime-gpu"), "onnxruntime", _always
    ),
    "openvino": _Known("OpenVINO", ".onnx and .xml on the CPU", ("openvino",), "'keras-qat[openvino]'", _always),
    "tensorrt": _Known("TensorRT", ".engine on a GPU", TENSORRT, "'keras-qat[tensorrt]'", _why_no_gpu),
    "tensorrt-rtx": _Known(
        "TensorRT-RTX",
        ".engine on an RTX GPU",
        TENSORRT_RTX,
        "'keras-qat[tensorrt-rtx]' cuda-python",
        _why_no_gpu,
        builds_anyway=True,
    ),
    "onnxruntime-cuda": _Known(
        "ONNX Runtime on CUDA",
        ".onnx on a GPU",
        ("onnxruntime-gpu",),
        "'onnxruntime-gpu[cuda,cudnn]' in place of onnxruntime",
        _why_no_cuda,
    ),
    "tensorflow": _Known("TensorFlow", "SavedModel", TENSORFLOW, "'keras-qat[cpu]'", _always),
    "keras": _Known("Keras", ".keras", ("keras",), "keras", _why_no_backend),
}
"""The engines of `keras_qat.runtimes`, which knows how to open them, and imports Keras for it."""


def read_engines(gpus: Sequence[Gpu]) -> tuple[EngineState, ...]:
    """What each engine can do here.

    Args:
        gpus: of this machine.

    Example:
        >>> next(engine.state for engine in read_engines(()) if engine.name == "onnxruntime")
        'ready'
    """
    return tuple(_state(name, known, gpus) for name, known in _KNOWN.items())


def _state(name: str, known: _Known, gpus: Sequence[Gpu]) -> EngineState:
    package = first_installed(known.packages)
    version = None if package is None else version_of(package)
    if version is None:
        return EngineState(name, known.title, None, "not installed", known.opens, f"pip install {known.install}")
    reason = known.why_not(gpus)
    state: State = "ready" if reason is None else "builds only" if known.builds_anyway else "can't run here"
    return EngineState(name, known.title, version, state, known.opens, reason or "")


_PACKAGES = ("keras", *TENSORFLOW, "numpy", "onnx", "onnx-ir", "onnxruntime", "onnxruntime-gpu")


@dataclass(frozen=True)
class Machine:
    """One machine.

    Args:
        cpu: its processor.
        architecture: such as x86_64.
        cores: how many there are.
        usable_cores: how many this process may use.
        memory_bytes: all memory; `None` if unknown.
        available_bytes: of it now; `None` if unknown.
        gpus: NVIDIA's.
        system: operating system.
        python: version.
        keras_qat: version.
        keras_backend: that Keras will start with.
        packages: versions of the installed packages that matter.
        engines: what each can do here.
        missing_extras: names of the extras that aren't installed.
        disks: where keras-qat writes.
    """

    cpu: Cpu
    architecture: str
    cores: int
    usable_cores: int
    memory_bytes: int | None
    available_bytes: int | None
    gpus: tuple[Gpu, ...]
    system: str
    python: str
    keras_qat: str
    keras_backend: str
    packages: dict[str, str]
    engines: tuple[EngineState, ...]
    missing_extras: tuple[str, ...]
    disks: tuple[Disk, ...]

    @property
    def usable(self) -> bool:
        """Whether any engine can run here."""
        return any(engine.state == "ready" for engine in self.engines)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def read_machine() -> Machine:
    """Look at this machine; TensorFlow isn't imported for it.

    Example:
        >>> read_machine().usable
        True
    """
    gpus, (total, available) = read_gpus(), memory()
    versions = {name: version_of(name) for name in _PACKAGES}
    return Machine(
        cpu=read_cpu(),
        architecture=platform.machine(),
        cores=os.cpu_count() or 1,
        usable_cores=usable_cores(),
        memory_bytes=total,
        available_bytes=available,
        gpus=gpus,
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        keras_qat=__version__,
        keras_backend=keras_backend(),
        packages={name: version for name, version in versions.items() if version is not None},
        engines=read_engines(gpus),
        missing_extras=tuple(extra.name for extra in EXTRAS if not extra.installed),
        disks=disks(),
    )


def keras_backend() -> str:
    """The backend that Keras will start with: the environment's, that of keras.json, or TensorFlow.

    Source: https://keras.io/getting_started/#configuring-your-backend.
    """
    named = os.environ.get("KERAS_BACKEND")
    if named:
        return named
    folder = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
    try:
        settings = json.loads((folder / "keras.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "tensorflow"
    return str(settings.get("backend", "tensorflow")) if isinstance(settings, dict) else "tensorflow"
