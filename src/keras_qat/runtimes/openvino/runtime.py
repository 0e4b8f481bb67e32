"""OpenVINO on the CPU."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from keras_qat.runtimes.openvino.core import import_openvino, read
from keras_qat.runtimes.runtime import Runtime, TensorSpec


def version(openvino: Any) -> str:
    """The engine and its version, without the build's hash."""
    return f"OpenVINO {openvino.__version__.partition('-')[0]}"


class OpenVINORuntime(Runtime):
    """Runs an ONNX or IR file on the CPU, for the least latency of one request.

    OpenVINO's CPU plugin computes in bfloat16 where the processor has it, unless told otherwise
    (https://docs.openvino.ai/2026/openvino-workflow/running-inference/optimize-inference/precision-control.html). A
    file must compute what was simulated, so what isn't quantized is float32 here.

    Args:
        path: the `.onnx`, or the `.xml` with its `.bin` beside it.
        threads: threads of one inference; all cores if not given.

    Raises:
        StorageError: the file is missing or no valid model.
        UserError: OpenVINO isn't installed.
    """

    def __init__(self, path: str | Path, *, threads: int | None = None) -> None:
        openvino = import_openvino()
        threads = threads or os.cpu_count() or 1
        core = openvino.Core()
        config = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": "f32",
        }
        compiled = core.compile_model(read(core, Path(path)), "CPU", config)
        super().__init__(
            version(openvino),
            f"CPU, {threads} threads",
            tuple(map(_spec, compiled.inputs)),
            tuple(map(_spec, compiled.outputs)),
        )
        self._request = compiled.create_infer_request()

    def _run(self, inputs: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        results = self._request.infer(list(inputs), share_inputs=True, share_outputs=False)
        return tuple(results.values())

    def _close(self) -> None:
        del self._request


def _spec(port: Any) -> TensorSpec:
    shape = tuple(None if size.is_dynamic else size.get_length() for size in port.partial_shape)
    return TensorSpec(port.any_name, shape, np.dtype(port.element_type.to_dtype()))
