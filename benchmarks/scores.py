"""Scores of files, and how far they are from those of the float model."""

import numpy as np
from engines import Run, open_onnxruntime, open_openvino

from keras_qat.machine import read_cpu

_QUICK = open_onnxruntime if read_cpu().vnni is False else open_openvino
"""OpenVINO saturates on a CPU without VNNI, and then computes something else."""

OPEN = {"onnxruntime": open_onnxruntime, "tensorrt": _QUICK, "openvino": _QUICK}
"""What runs the files of a target. TensorRT's run in OpenVINO, which takes them without loss of speed."""

SMALLEST = 1e-9
"""Stands for a probability of 0, and for noise of 0."""


def score(run: Run, x: np.ndarray, batch: int) -> np.ndarray:
    """The scores of all images, batch by batch: float32, shape (images, classes)."""
    return np.concatenate([run(np.array(x[i : i + batch])) for i in range(0, len(x), batch)])


def sqnr(exact: np.ndarray, found: np.ndarray) -> float:
    """The signal-to-noise ratio of the logits behind two arrays of softmax scores, in dB."""
    signal = _logits(exact)
    noise = signal - _logits(found)
    return float(10 * np.log10(np.sum(signal**2) / max(np.sum(noise**2), SMALLEST)))


def _logits(scores: np.ndarray) -> np.ndarray:
    """The logits of softmax scores, up to a constant that is taken out."""
    logits = np.log(scores.astype(np.float64) + SMALLEST)
    return np.asarray(logits - logits.mean(axis=1, keepdims=True))
