"""ONNX Runtime on the CPU or an NVIDIA GPU."""

from collections.abc import Mapping
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from keras_qat import machine, onnx
from keras_qat.errors import StorageError, UserError
from keras_qat.runtimes.runtime import RunGraph, Runtime, TensorSpec, threads_or_all

_PROVIDERS: Mapping[str, tuple[str, dict[str, str]]] = {
    "cpu": ("CPUExecutionProvider", {}),
    "cuda": ("CUDAExecutionProvider", {"use_tf32": "0"}),
}
"""The execution provider of each device, and its options. By default CUDA's convolutions round float32 to the 10 bits
of TF32, which is not what was simulated."""

_DTYPES = {"float": "float32", "double": "float64"}
"""The NumPy names of types whose ONNX Runtime names differ."""


def open_session(
    model: str | Path | bytes, *, threads: int | None = None, device: str = "cpu", optimize: bool | None = None
) -> onnxruntime.InferenceSession:
    """Open an ONNX Runtime session whose integer kernels are exact.

    On x86 without VNNI the fast uint8 x int8 kernel adds pairs of products in 16 bits and saturates. ONNX Runtime's
    `session.x64quantprecision` makes it exact there
    (https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html, "U8S8 and saturation"). It is set
    on such CPUs, since a file must compute what was simulated; set it in your own session too. It is not set on a CPU
    with VNNI, which is exact without it: ResNet50 took three times as long with it.

    Args:
        model: the path of an ONNX file, or its bytes.
        threads: threads inside an operator; all cores if not given.
        device: cpu or cuda.
        optimize: whether ONNX Runtime optimizes the graph. If not given, it does, except for FP16 files of keras-qat on
            the CPU: ONNX Runtime 1.32 computes those wrongly when it optimizes them, without a message.

    Raises:
        StorageError: If the file is missing or not a valid model.
        UserError: If the device is unknown, or this ONNX Runtime can't use it.
    """
    provider, settings = _provider(device)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads_or_all(threads)
    options.log_severity_level = 3
    # Threads that spin until the next run would slow down others, such as the session that is timed next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if machine.read_cpu().vnni is not True:
        options.add_session_config_entry("session.x64quantprecision", "1")
    if optimize is False:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    source = model if isinstance(model, bytes) else str(model)
    try:
        # Without this, it prints an error, and tries again on the CPU.
        session = onnxruntime.InferenceSession(source, options, providers=[(provider, settings)], enable_fallback=0)
    except Exception as error:
        # ONNX Runtime's exceptions have no common base class of their own.
        received = f"{len(source)} bytes" if isinstance(source, bytes) else repr(source)
        raise StorageError(
            f"ONNX Runtime can't load the model. Received: {received}: {error}. Export the file again."
        ) from error
    if provider not in session.get_providers():
        raise UserError(
            f"ONNX Runtime found no usable {device} device and would run on the CPU. Received: device={device!r}. "
            "Check the driver with nvidia-smi, and that the CUDA and cuDNN libraries are those that "
            "https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html names."
        )
    half = session.get_modelmeta().custom_metadata_map.get(onnx.PRECISION_KEY) == "fp16"
    if optimize is None and device == "cpu" and half:
        return open_session(model, threads=threads, optimize=False)
    return session


def open_graph(content: bytes) -> RunGraph:
    """Open an ONNX file in memory; see `open_session` for the settings."""
    session = open_session(content)
    return lambda inputs: session.run(None, dict(inputs))


class OnnxRuntime(Runtime):
    """Runs an ONNX file; see `open_session` for the settings.

    Args:
        path: the file.
        threads: threads inside an operator; all cores if not given.
        device: cpu or cuda.

    Raises:
        StorageError: If the file is missing or not a valid model.
        UserError: If the device is unknown, or this ONNX Runtime can't use it.
    """

    def __init__(self, path: str | Path, *, threads: int | None = None, device: str = "cpu") -> None:
        threads = threads_or_all(threads)
        # ONNX Runtime would also read external data that are outside of the file's folder, or wait for a pipe.
        onnx.read_onnx_file(path).require_data()
        self._session = open_session(path, threads=threads, device=device)
        super().__init__(
            f"ONNX Runtime {onnxruntime.__version__}",
            f"CPU, {threads} threads" if device == "cpu" else device.upper(),
            tuple(_spec(tensor, path) for tensor in self._session.get_inputs()),
            tuple(_spec(tensor, path) for tensor in self._session.get_outputs()),
        )

    def _run(self, inputs: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        named = {spec.name: array for spec, array in zip(self.inputs, inputs, strict=True)}
        return tuple(self._session.run(None, named))

    def _close(self) -> None:
        del self._session


def why_no_cuda() -> str | None:
    """Why ONNX Runtime can't use CUDA here, or `None` if it has the provider.

    A missing driver shows only when a file is opened.
    """
    provider, _ = _PROVIDERS["cuda"]
    if provider in onnxruntime.get_available_providers():
        return None
    return f"this ONNX Runtime has no {provider}; it comes with the package onnxruntime-gpu"


def _provider(device: str) -> tuple[str, dict[str, str]]:
    if device not in _PROVIDERS:
        raise UserError(f"Unknown device. Received: {device!r}. Choose one of: {', '.join(_PROVIDERS)}.")
    provider, settings = _PROVIDERS[device]
    if provider not in onnxruntime.get_available_providers():
        raise UserError(
            f"This ONNX Runtime has no {provider}. Received: device={device!r}. "
            "Replace it: pip uninstall onnxruntime, then pip install 'onnxruntime-gpu[cuda,cudnn]'"
        )
    if device == "cuda" and hasattr(onnxruntime, "preload_dlls"):
        # CUDA's libraries may lie in Python packages, where the loader does not look. The function prints which ones it
        # does not find; whether one of them is needed shows when the session opens.
        with redirect_stdout(StringIO()):
            onnxruntime.preload_dlls()
    return provider, settings


def _spec(tensor: Any, path: str | Path) -> TensorSpec:
    name = tensor.type.removeprefix("tensor(").removesuffix(")")
    try:
        dtype = np.dtype(_DTYPES.get(name, name))
    except TypeError as error:
        raise StorageError(
            f"{tensor.name!r} is of a type that NumPy doesn't have. Received: {tensor.type} in {str(path)!r}. "
            "Export a model from numbers to numbers."
        ) from error
    return TensorSpec(tensor.name, tuple(size if isinstance(size, int) else None for size in tensor.shape), dtype)
