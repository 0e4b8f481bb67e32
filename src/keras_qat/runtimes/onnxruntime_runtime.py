"""ONNX Runtime on the CPU."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from keras_qat.errors import StorageError
from keras_qat.runtimes.runtime import Runtime


def open_session(
    model: str | Path | bytes, *, threads: int | None = None, optimize: bool | None = None
) -> onnxruntime.InferenceSession:
    """An ONNX Runtime session on the CPU whose integer kernels are exact.

    On x86 without VNNI the fast uint8 x int8 kernel adds pairs of products in 16 bits and saturates. ONNX Runtime's
    `session.x64quantprecision` makes it exact there, for some speed, and changes nothing on a CPU with VNNI
    (https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html, "U8S8 and saturation"). It is on
    here, since a file must compute what was simulated; set it in your own session too.

    Args:
        model: the path of an ONNX file, or its bytes.
        threads: threads inside an operator; all cores if not given.
        optimize: whether ONNX Runtime optimizes the graph. If not given, it does, but for our FP16 files: ONNX Runtime
            1.32 computes those wrongly on the CPU when it optimizes them, and says nothing.

    Raises:
        StorageError: the file is missing or no valid model.
    """
    if optimize is None:
        session = open_session(model, threads=threads, optimize=False)
        if session.get_modelmeta().custom_metadata_map.get("keras_qat.precision") == "fp16":
            return session
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or os.cpu_count() or 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.x64quantprecision", "1")
    if optimize is False:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    source = model if isinstance(model, bytes) else str(model)
    try:
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        # ONNX Runtime's exceptions have no common base class of their own.
        received = f"{len(source)} bytes" if isinstance(source, bytes) else repr(source)
        raise StorageError(
            f"ONNX Runtime can't load the model. Received: {received}: {error}. Export the file again."
        ) from error


def input_dtype(argument: Any) -> type[np.floating[Any]]:
    """The element type that a float input of a session wants: float16 in FP16 files that ask for it."""
    return np.float16 if argument.type == "tensor(float16)" else np.float32


class OnnxRuntime(Runtime):
    """Runs an ONNX file; see `open_session` for the settings.

    Args:
        path: the file.
        threads: threads inside an operator; all cores if not given.

    Raises:
        StorageError: the file is missing or no valid model.
    """

    def __init__(self, path: str | Path, *, threads: int | None = None) -> None:
        threads = threads or os.cpu_count() or 1
        super().__init__(f"ONNX Runtime {onnxruntime.__version__}", f"CPU, {threads} threads")
        self._session = open_session(path, threads=threads)
        self._input = self._session.get_inputs()[0].name
        self._dtype = input_dtype(self._session.get_inputs()[0])

    def run(self, images: np.ndarray) -> np.ndarray:
        """Score a batch; see `Runtime.run`."""
        return np.asarray(self._session.run(None, {self._input: images.astype(self._dtype, copy=False)})[0], np.float32)

    def close(self) -> None:
        """Free the session."""
        del self._session
