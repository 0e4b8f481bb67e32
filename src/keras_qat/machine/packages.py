"""The installed packages, and the machine and versions that a result was made with.

Versions are read from the packages' metadata. Nothing is imported: TensorFlow takes seconds.
"""

import os
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata

from keras_qat.machine.hardware import read_cpu


@dataclass(frozen=True)
class Extra:
    """An optional set of packages.

    Args:
        name: of the extra, as in keras-qat[NAME].
        packages: the packages that provide it; one is enough.
        purpose: what it is for.
    """

    name: str
    packages: tuple[str, ...]
    purpose: str

    @property
    def installed(self) -> bool:
        """Whether one of its packages is installed."""
        return first_installed(self.packages) is not None

    @property
    def install(self) -> str:
        """The command that installs it."""
        return f"pip install 'keras-qat[{self.name}]'"


TENSORFLOW = ("tensorflow", "tensorflow-cpu")
TENSORRT = ("tensorrt", "tensorrt-cu12", "tensorrt-cu13")
TENSORRT_RTX = ("tensorrt-rtx-cu13", "tensorrt-rtx-cu12", "tensorrt-rtx")

EXTRAS = (
    Extra("cpu", TENSORFLOW, "calibrate and train on the CPU"),
    Extra("gpu", ("tensorflow",), "train on an NVIDIA GPU"),
    Extra("openvino", ("openvino",), "run files in OpenVINO"),
    Extra("tensorrt", TENSORRT, "build and run TensorRT engines"),
    Extra("tensorrt-rtx", TENSORRT_RTX, "build and run TensorRT-RTX engines"),
    Extra("plot", ("matplotlib",), "benchmark --plot"),
    Extra("tensorboard", ("tensorboard",), "curves of a training"),
    Extra("tfds", ("tensorflow-datasets",), "--data tfds:NAME"),
    Extra("tf2onnx", ("tf2onnx",), "from SavedModel to ONNX by hand"),
)

_BACKENDS: Mapping[str, tuple[str, ...]] = {"tensorflow": TENSORFLOW, "jax": ("jax",), "torch": ("torch",)}
"""{backend of Keras: the packages that provide it}."""

_RECORDED = ("keras-qat", "keras", "tensorflow", "tensorflow-cpu", "onnx", "onnxruntime", "numpy")
"""The packages whose versions are kept with a result."""


def version_of(package: str) -> str | None:
    """The installed version of a package; `None` if it isn't installed.

    Example:
        >>> version_of("no-such-package") is None
        True
    """
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def first_installed(packages: Iterable[str]) -> str | None:
    """The first of these packages that is installed."""
    return next((package for package in packages if version_of(package) is not None), None)


def backend_packages(backend: str) -> tuple[str, ...]:
    """The packages that provide a backend of Keras; one is enough.

    Example:
        >>> backend_packages("tensorflow")
        ('tensorflow', 'tensorflow-cpu')
    """
    return _BACKENDS.get(backend, (backend,))


@dataclass(frozen=True)
class Environment:
    """The machine and the versions that a result was made with.

    Args:
        cpu: name of the processor.
        cores: the number of its cores.
        vnni: whether it multiplies int8 in hardware (AVX512-VNNI or AVX-VNNI); `None` where that is unknown.
        system: operating system.
        python: version.
        packages: version of each installed package that the result may depend on.
    """

    cpu: str
    cores: int
    vnni: bool | None
    system: str
    python: str
    packages: dict[str, str]


def read_environment() -> Environment:
    """Describe this machine.

    Example:
        >>> read_environment().cores > 0
        True
    """
    cpu = read_cpu()
    versions = {name: version_of(name) for name in _RECORDED}
    return Environment(
        cpu=cpu.name,
        cores=os.cpu_count() or 1,
        vnni=cpu.vnni,
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        packages={name: version for name, version in versions.items() if version is not None},
    )
