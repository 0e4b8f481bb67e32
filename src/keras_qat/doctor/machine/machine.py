"""This machine as far as quantization is concerned: a frozen value."""

import json
import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from keras_qat._version import __version__
from keras_qat.cpu import Cpu, read_cpu
from keras_qat.doctor.machine.engines import EngineState, read_engines
from keras_qat.doctor.machine.gpu import Gpu, read_gpus
from keras_qat.doctor.machine.packages import EXTRAS, TENSORFLOW, version_of
from keras_qat.doctor.machine.resources import Disk, disks, memory, usable_cores

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
