"""The machine and the versions that a result was made with."""

import os
import platform
from dataclasses import dataclass
from importlib import metadata

from keras_qat.cpu import read_cpu

_PACKAGES = ("keras-qat", "keras", "tensorflow", "tensorflow-cpu", "onnx", "onnxruntime", "numpy")


@dataclass(frozen=True)
class Environment:
    """Where a run ran.

    Args:
        cpu: name of the processor.
        cores: how many.
        vnni: whether it multiplies int8 in hardware (AVX512-VNNI or AVX-VNNI); `None` where that is unknown.
        system: operating system.
        python: version.
        packages: version of each installed package that matters.
    """

    cpu: str
    cores: int
    vnni: bool | None
    system: str
    python: str
    packages: dict[str, str]


def read_environment() -> Environment:
    """Look at this machine.

    Example:
        >>> read_environment().cores > 0
        True
    """
    cpu = read_cpu()
    return Environment(
        cpu=cpu.name,
        cores=os.cpu_count() or 1,
        vnni=cpu.vnni,
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        packages=_versions(),
    )


def _versions() -> dict[str, str]:
    installed = {name for names in metadata.packages_distributions().values() for name in names}
    return {name: metadata.version(name) for name in _PACKAGES if name in installed}
