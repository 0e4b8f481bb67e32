"""What the single score of a model file means, where nothing beside it says so: read from what computes it."""

from collections.abc import Callable, Mapping
from pathlib import Path

from keras_qat.errors import UnsupportedModelError
from keras_qat.evaluate_file.onnx_score import onnx_score
from keras_qat.graph import score_meaning, trace
from keras_qat.model_facts import FACTS_FILE
from keras_qat.runtimes import KerasRuntime, Runtime
from keras_qat.types import ScoreMeaning

_READERS: Mapping[str, Callable[[Path], ScoreMeaning | None]] = {".onnx": onnx_score}
"""By suffix. A Keras model is in its runtime already; engines, OpenVINO's files and SavedModels show nothing."""

_BESIDE = f'put a {FACTS_FILE} beside it, as a run writes one, with "scores": "probability" or "logit"'

_ADVICE: Mapping[str, str] = {
    ".keras": f"End the model with a sigmoid, or {_BESIDE}.",
    ".onnx": "Export it with a Sigmoid at its end, or with the MatMul, Gemm or Conv that makes the logit.",
}
"""By suffix. ONNX files say such things in their metadata, and nothing beside them is read."""

_SILENT = f"Its format doesn't show it: {_BESIDE}."


def single_score(path: Path, runtime: Runtime) -> ScoreMeaning:
    """What the score of a model with one output of shape (batch, 1) means.

    Args:
        path: the model file.
        runtime: it, opened.

    Raises:
        UnsupportedModelError: the file doesn't show it, or it is a Keras model without a graph.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        >>> single_score(Path("my.keras"), KerasRuntime(model))
        'logit'
    """
    found = _shown(path, runtime)
    if found is None:
        raise UnsupportedModelError(
            "A single score is read as that of the second of two classes, a probability behind a sigmoid or a logit "
            f"before it, and this file doesn't show which. Received: {path}, which writes "
            f"{'; '.join(map(str, runtime.outputs))}. {_ADVICE.get(path.suffix, _SILENT)}"
        )
    return found


def _shown(path: Path, runtime: Runtime) -> ScoreMeaning | None:
    if isinstance(runtime, KerasRuntime):
        return score_meaning(trace(runtime.model))
    read = _READERS.get(path.suffix)
    return None if read is None else read(path)
