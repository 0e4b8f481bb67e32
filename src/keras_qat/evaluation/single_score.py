"""What ends an output of a model, and what a single score means, where nothing in or beside the file says so.

A probability comes from a sigmoid, a logit from the matrix product before it: a Keras model shows that by its layers,
an ONNX file by the operators that compute its output.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import onnx_ir as ir

from keras_qat import graph, onnx, runtimes
from keras_qat.errors import UnsupportedModelError
from keras_qat.files import FACTS_FILE
from keras_qat.types import ScoreMeaning

_SEEN_THROUGH = frozenset(
    {
        *("Cast", "Identity", "Reshape", "Flatten", "Squeeze", "Transpose"),
        *("QuantizeLinear", "DequantizeLinear"),
        *("ReduceMean", "GlobalAveragePool"),
    }
)
"""Operators that leave the threshold of a score where it is, such as a mean: of probabilities, or of logits."""

_PRODUCTS = frozenset({"Gemm", "MatMul", "Conv"})

_MEANINGS: Mapping[str, ScoreMeaning] = {"Sigmoid": "probability", **dict.fromkeys(_PRODUCTS, "logit")}
"""The meaning of a score by the operator that computes it."""

_FLOATS = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE})

_BESIDE = f'put a {FACTS_FILE} beside it, as a run writes one, with "scores": "probability" or "logit"'

_ADVICE: Mapping[str, str] = {
    ".keras": f"End the model with a sigmoid, or {_BESIDE}.",
    ".onnx": "Export it with a Sigmoid at its end, or with the MatMul, Gemm or Conv that makes the logit.",
}
"""By suffix. An ONNX file says what its score means in its metadata; what stands beside it is not read."""

_SILENT = f"Its format doesn't show it: {_BESIDE}."
"""The advice for TensorRT engines, OpenVINO's files and SavedModels."""


def onnx_score(path: Path, output: int = 0) -> ScoreMeaning | None:
    """What an output of an ONNX file means whose last axis has one score.

    Args:
        path: the file.
        output: index of the output.

    Returns:
        "probability" if a Sigmoid computes the score, "logit" if a MatMul, Gemm or Conv does, with or without a
        constant bias behind it; `None` if another operator does, or if the output is an integer, whose threshold lies
        elsewhere.

    Raises:
        StorageError: If the file can't be read.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> import onnx
        >>> model = onnx.parser.parse_model(
        ...     '<ir_version: 8, opset_import: ["": 17]> g (float[n, 1] x) => (float[n, 1] y) { y = Sigmoid(x) }'
        ... )
        >>> with TemporaryDirectory() as folder:
        ...     onnx.save(model, Path(folder, "m.onnx"))
        ...     onnx_score(Path(folder, "m.onnx"))
        'probability'
    """
    node = _last_node(path, output)
    if node is None:
        return None
    return "logit" if node.op_type == "Add" and _adds_bias(node) else _MEANINGS.get(node.op_type)


def _last_node(path: Path, output: int) -> ir.Node | None:
    value = onnx.read_onnx_file(path).model.graph.outputs[output]
    return onnx.producer(value, _keeps_threshold) if value.dtype in _FLOATS else None


def last_operator(path: Path, runtime: runtimes.Runtime, output: int) -> Literal["Softmax", "Sigmoid"] | None:
    """The activation that makes scores of classes and ends an output; `None` if another does, or none is seen.

    Args:
        path: the model file.
        runtime: the opened file.
        output: index of the output.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((8, 3)), keras.layers.Dense(4, "softmax")])
        >>> last_operator(Path("my.keras"), runtimes.KerasRuntime(model), 0)
        'Softmax'
    """
    if isinstance(runtime, runtimes.KerasRuntime):
        task = graph.read_tasks(graph.trace(runtime.model, only_run=True))[output]
        return None if task.scores is None else "Softmax" if task.scores == "classes" else "Sigmoid"
    node = _last_node(path, output) if path.suffix == ".onnx" else None
    found: Mapping[str, Literal["Softmax", "Sigmoid"]] = {
        "Softmax": "Softmax", "LogSoftmax": "Softmax", "Sigmoid": "Sigmoid",
    }  # fmt: skip
    return None if node is None else found.get(node.op_type)


def single_score(path: Path, runtime: runtimes.Runtime, output: int = 0) -> ScoreMeaning:
    """What a single score along the last axis of an output means.

    Args:
        path: the model file.
        runtime: the opened file.
        output: index of the output.

    Raises:
        UnsupportedModelError: If the file doesn't show it, or is a Keras model without a graph.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        >>> single_score(Path("my.keras"), runtimes.KerasRuntime(model))
        'logit'
    """
    meaning: ScoreMeaning | None = None
    if isinstance(runtime, runtimes.KerasRuntime):
        meaning = graph.read_tasks(graph.trace(runtime.model, only_run=True), class_labels=True)[output].scores
    elif path.suffix == ".onnx":
        meaning = onnx_score(path, output)
    if meaning is None:
        raise UnsupportedModelError(
            "A single score is read as that of the second of two classes, a probability behind a sigmoid or a logit "
            f"before it, and this file doesn't show which. Received: {path}, which writes "
            f"{'; '.join(map(str, runtime.outputs))}. {_ADVICE.get(path.suffix, _SILENT)}"
        )
    return meaning


def _keeps_threshold(node: ir.Node) -> bool:
    return node.op_type in _SEEN_THROUGH


def _adds_bias(addition: ir.Node) -> bool:
    """Whether an Add is the bias of a product; the sum of two scores is neither a logit nor a probability."""
    sources = [onnx.source(value, _keeps_threshold) for value in addition.inputs if value is not None]
    makers = (value.producer() for value in sources)
    multiplied = any(node is not None and node.op_type in _PRODUCTS for node in makers)
    return multiplied and any(onnx.constant_tensor(value) is not None for value in sources)
