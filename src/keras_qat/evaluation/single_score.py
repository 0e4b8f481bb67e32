"""What the single score of an ONNX file means, where nothing in it says so: read from the operators that compute it.

What the single score of a model file means, where nothing beside it says so: read from what computes it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import GraphProto, NodeProto, TensorProto

from keras_qat.errors import UnsupportedModelError
from keras_qat.graph import score_meaning, trace
from keras_qat.models import FACTS_FILE
from keras_qat.runtimes import KerasRuntime, Runtime
from keras_qat.types import ScoreMeaning

_SEEN_THROUGH = frozenset(
    {
        *("Cast", "Identity", "Reshape", "Flatten", "Squeeze", "Transpose"),
        *("QuantizeLinear", "DequantizeLinear"),
        *("ReduceMean", "GlobalAveragePool"),
    }
)
"""What lies behind a score and leaves its threshold where it is: a mean of probabilities, or of logits, is one, too."""

_PRODUCTS = frozenset({"Gemm", "MatMul", "Conv"})

_MEANINGS: Mapping[str, ScoreMeaning] = {"Sigmoid": "probability", **dict.fromkeys(_PRODUCTS, "logit")}
"""By the operator that computes the score."""

_FLOATS = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE})


def onnx_score(path: Path) -> ScoreMeaning | None:
    """What the score of an ONNX file with one output of shape (batch, 1) means.

    Args:
        path: of a file that an engine has opened.

    Returns:
        `None` where the file doesn't show it. It does by a Sigmoid at its end, or by the MatMul, Gemm or Conv of a
        logit, with a constant bias behind it or without; an output of integers has its threshold elsewhere.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> from onnx import parser
        >>> model = parser.parse_model(
        ...     '<ir_version: 8, opset_import: ["": 17]> g (float[n, 1] x) => (float[n, 1] y) { y = Sigmoid(x) }'
        ... )
        >>> with TemporaryDirectory() as folder:
        ...     onnx.save(model, Path(folder, "m.onnx"))
        ...     onnx_score(Path(folder, "m.onnx"))
        'probability'
    """
    graph = onnx.load(path, load_external_data=False).graph
    (output,) = graph.output
    if output.type.tensor_type.elem_type not in _FLOATS:
        return None
    flow = _Flow.of(graph)
    node = flow.maker(output.name)
    if node is None:
        return None
    return "logit" if node.op_type == "Add" and flow.adds_bias(node) else _MEANINGS.get(node.op_type)


@dataclass(frozen=True)
class _Flow:
    """Which node makes each tensor, and which tensors are stored in the file."""

    makers: Mapping[str, NodeProto]
    stored: frozenset[str]

    @classmethod
    def of(cls, graph: GraphProto) -> "_Flow":
        makers = {output: node for node in graph.node for output in node.output}
        constants = (name for name, node in makers.items() if node.op_type == "Constant")
        return cls(makers, frozenset((*constants, *(one.name for one in graph.initializer))))

    def maker(self, tensor: str) -> NodeProto | None:
        """The node that makes a tensor, seen through; `None` for an input of the graph or an initializer."""
        return self.makers.get(self._source(tensor))

    def adds_bias(self, addition: NodeProto) -> bool:
        """Whether an Add is the bias of a product; the sum of two scores would be read wrong."""
        sources = [self._source(tensor) for tensor in addition.input]
        multiplied = (source in self.makers and self.makers[source].op_type in _PRODUCTS for source in sources)
        return any(multiplied) and any(source in self.stored for source in sources)

    def _source(self, tensor: str) -> str:
        node = self.makers.get(tensor)
        return self._source(node.input[0]) if node is not None and node.op_type in _SEEN_THROUGH else tensor


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
