"""The engines of the comparison, each opened the same way for every file: from a path to a function of images."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np

Run = Callable[[np.ndarray], np.ndarray]
"""float32 images (batch, height, width, channels) → float32 scores (batch, classes)."""


@dataclass(frozen=True)
class Engine:
    """One engine.

    Args:
        name: also the package's name, and that of our target for it.
        open: (path, threads) → the loaded model.
        targets: our targets for it, best first; the first one that this version of keras-qat knows is taken.
    """

    name: str
    open: Callable[[Path, int], Run]
    targets: tuple[str, ...]

    def absent(self) -> str | None:
        """Why it can't take part here; `None` if it can."""
        return None if importlib.util.find_spec(self.name) else f"not installed: pip install {self.name}"

    @property
    def title(self) -> str:
        """Name and version."""
        return f"{self.name} {metadata.version(self.name)}"


def open_onnxruntime(path: Path, threads: int) -> Run:
    """All optimizations, as by default. Threads stop spinning when a run ends, or they would slow the next session."""
    import onnxruntime

    from keras_qat.machine import read_cpu

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if read_cpu().vnni is not True:
        options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda images: np.asarray(session.run(None, {name: images})[0])


def open_openvino(path: Path, threads: int) -> Run:
    """For the least latency of one request; what isn't quantized in float32, where the default may be bfloat16."""
    import openvino

    config = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",
    }
    request = openvino.Core().compile_model(path, "CPU", config).create_infer_request()
    return lambda images: np.array(request.infer([images])[0])


ENGINES = (
    Engine("onnxruntime", open_onnxruntime, ("onnxruntime",)),
    Engine("openvino", open_openvino, ("openvino", "onnxruntime")),
)
