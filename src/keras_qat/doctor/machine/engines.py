"""The engines of this machine: installed or not, and what each can do here. Nothing heavy is imported."""

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from keras_qat.doctor.machine.gpu import Gpu
from keras_qat.doctor.machine.packages import TENSORFLOW, TENSORRT, TENSORRT_RTX, first_installed, version_of

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
