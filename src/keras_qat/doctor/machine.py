"""This machine: hardware, packages, and what each engine can do here. No framework is imported for it."""

import importlib.util
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from keras_qat import machine
from keras_qat._version import __version__
from keras_qat.errors import UserError
from keras_qat.files import read_json
from keras_qat.machine import Gpu, first_installed, version_of
from keras_qat.targets import ENGINES, Engine

State = Literal["ready", "builds only", "can't run here", "not installed"]

_PACKAGES = ("keras", *machine.TENSORFLOW, "numpy", "onnx", "onnx-ir", "onnxruntime", "onnxruntime-gpu")


@dataclass(frozen=True)
class EngineState:
    """One engine on this machine.

    Args:
        name: as in `--engine`.
        title: as its makers write it.
        version: the installed version; `None` if none is installed.
        state: what can be done with it here.
        opens: the files that it runs.
        remedy: what to do to run it; "" if it is ready.
    """

    name: str
    title: str
    version: str | None
    state: State
    opens: str
    remedy: str


@dataclass(frozen=True)
class Machine:
    """One machine.

    Args:
        cpu: its processor.
        architecture: such as x86_64.
        cores: number of cores.
        usable_cores: number of cores that this process may use.
        memory_bytes: all memory; `None` if unknown.
        available_bytes: the memory that is available now; `None` if unknown.
        gpus: the NVIDIA GPUs.
        system: the operating system.
        python: version of Python.
        keras_qat: version of keras-qat.
        keras_backend: the backend that Keras will start with.
        packages: versions of the installed packages that matter.
        engines: what each engine can do here.
        missing_extras: names of the extras that are not installed.
        disks: the disks that keras-qat writes to.
    """

    cpu: machine.Cpu
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
    disks: tuple[machine.Disk, ...]

    @property
    def usable(self) -> bool:
        """Whether any engine can run here."""
        return any(engine.state == "ready" for engine in self.engines)

    def to_dict(self) -> dict[str, Any]:
        """The machine as JSON can hold it."""
        return asdict(self)


def read_machine() -> Machine:
    """Look at this machine. TensorFlow is not imported for it.

    Example:
        >>> read_machine().usable
        True
    """
    gpus, (total, available) = machine.read_gpus(), machine.memory()
    versions = {name: version_of(name) for name in _PACKAGES}
    return Machine(
        cpu=machine.read_cpu(),
        architecture=platform.machine(),
        cores=os.cpu_count() or 1,
        usable_cores=machine.usable_cores(),
        memory_bytes=total,
        available_bytes=available,
        gpus=gpus,
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        keras_qat=__version__,
        keras_backend=keras_backend(),
        packages={name: version for name, version in versions.items() if version is not None},
        engines=read_engines(gpus),
        missing_extras=tuple(extra.name for extra in machine.EXTRAS if not extra.installed),
        disks=machine.disks(),
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
        settings = read_json(folder / "keras.json")
    except UserError:
        return "tensorflow"
    return str(settings.get("backend", "tensorflow")) if isinstance(settings, dict) else "tensorflow"


def read_engines(gpus: Sequence[Gpu]) -> tuple[EngineState, ...]:
    """What each engine can do here.

    Args:
        gpus: the GPUs of this machine.

    Example:
        >>> next(engine.state for engine in read_engines(()) if engine.name == "onnxruntime")
        'ready'
    """
    return tuple(_state(engine, gpus) for engine in ENGINES.values())


def _state(engine: Engine, gpus: Sequence[Gpu]) -> EngineState:
    package = first_installed(engine.packages)
    version = None if package is None else version_of(package)
    state: State = "ready"
    if version is None:
        state, remedy = "not installed", f"pip install {engine.install}"
    elif remedy := _WHY_NOT[engine.needs](gpus):
        state = "builds only" if engine.ahead_of_time else "can't run here"
    return EngineState(engine.name, engine.title, version, state, engine.opens, remedy)


def _why_no_backend(_: Sequence[Gpu]) -> str:
    installed = first_installed((*machine.TENSORFLOW, "jax", "torch"))
    return "" if installed else "no backend is installed: pip install 'keras-qat[cpu]'"


def _why_no_gpu(gpus: Sequence[Gpu]) -> str:
    if not gpus:
        return "there is no NVIDIA GPU, or no driver for it"
    installed = first_installed(("cuda-python", "cuda-bindings"))
    return "" if installed else "it is run through cuda-python: pip install cuda-python"


def _why_no_cuda_provider(gpus: Sequence[Gpu]) -> str:
    if not gpus:
        return "there is no NVIDIA GPU, or no driver for it"
    if importlib.util.find_spec("onnxruntime") is None:
        return "the module onnxruntime is missing: pip install onnxruntime-gpu again"
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        return ""
    return "this build has no CUDA: pip uninstall onnxruntime, then install onnxruntime-gpu again"


_WHY_NOT: Mapping[str, Callable[[Sequence[Gpu]], str]] = {
    "nothing": lambda _: "",
    "backend": _why_no_backend,
    "gpu": _why_no_gpu,
    "cuda provider": _why_no_cuda_provider,
}
"""For each need of an engine, why this machine does not meet it; "" if it does."""
