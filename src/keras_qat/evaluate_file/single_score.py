"""What the single score of a model file means, where nothing beside it says so: read from what computes it."""

from collections.abc import Callable, Mapping
from pathlib import Path

import onnx

from keras_qat.graph import score_meaning, trace
from keras_qat.model_file import load_model_file
from keras_qat.types import ScoreMeaning

_SEEN_THROUGH = frozenset({"Cast", "Identity", "Reshape", "Flatten", "Squeeze", "Transpose"})
"""Operators that may stand behind a score and leave it as it is."""

_MEANINGS: Mapping[str, ScoreMeaning] = {
    "Sigmoid": "probability",
    **dict.fromkeys(("Gemm", "MatMul", "Add", "Conv"), "logit"),
}
"""By the ONNX operator that computes the score."""


def single_score(path: Path) -> ScoreMeaning | None:
    """What the score of a file with one output of shape (batch, 1) means.

    Args:
        path: the model file.

    Returns:
        `None` where the file doesn't show it: engines and SavedModels never do.

    Raises:
        StorageError: a .keras file can't be read.

    Example:
        >>> single_score(Path("qat.engine")) is None
        True
    """
    read = _READERS.get(path.suffix)
    return None if read is None else read(path)


def _of_keras(path: Path) -> ScoreMeaning | None:
    return score_meaning(trace(load_model_file(path)))


def _of_onnx(path: Path) -> ScoreMeaning | None:
    graph = onnx.load(path, load_external_data=False).graph
    producers = {output: node for node in graph.node for output in node.output}
    node = producers.get(graph.output[0].name)
    while node is not None and node.op_type in _SEEN_THROUGH:
        node = producers.get(node.input[0])
    return None if node is None else _MEANINGS.get(node.op_type)


_READERS: Mapping[str, Callable[[Path], ScoreMeaning | None]] = {".keras": _of_keras, ".onnx": _of_onnx}
