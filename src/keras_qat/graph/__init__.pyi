from .facts import OUTPUT, Edge, Graph, Node, non_negative_tensors
from .kinds import activation_name, kind_of
from .read import Call, TensorRef, Trace, input_names, trace
from .registry import register_kind
from .scores import best_class, classes_of, per_class, score_meaning
from .soundness import require_finite, require_sound

__all__ = [
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
    "require_finite",
    "require_sound",
    "score_meaning",
    "trace",
]
