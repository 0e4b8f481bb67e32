"""Keras model → frozen facts: nodes, edges, kinds, signs."""

from keras_qat.graph.facts import OUTPUT, Edge, Graph, Node
from keras_qat.graph.input_names import input_names
from keras_qat.graph.kinds import kind_of, register_kind
from keras_qat.graph.score_meaning import score_meaning
from keras_qat.graph.sign import non_negative_tensors
from keras_qat.graph.trace import Call, TensorRef, Trace, trace

__all__ = [
    "OUTPUT",
    "Call",
    "Edge",
    "Graph",
    "Node",
    "TensorRef",
    "Trace",
    "input_names",
    "kind_of",
    "non_negative_tensors",
    "register_kind",
    "score_meaning",
    "trace",
]
