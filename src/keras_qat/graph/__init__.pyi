from .facts import OUTPUT, Edge, Graph, Node, non_negative_tensors
from .kinds import IDENTITY_LAYERS, activation_name, kind_of
from .read import Call, TensorRef, Trace, input_names, trace
from .registry import register_kind
from .scores import best_class, classes_of, per_class, score_meaning

__all__ = [
    "IDENTITY_LAYERS",
    "OUTPUT",
    "Call",
    "Edge",
    "Graph",
    "Node",
    "TensorRef",
    "Trace",
    "activation_name",
    "best_class",
    "classes_of",
    "input_names",
    "kind_of",
    "non_negative_tensors",
    "per_class",
    "register_kind",
    "score_meaning",
    "trace",
]
