from .copying import copy_by_settings, layer_settings
from .facts import OUTPUT, Edge, Graph, Node, non_negative_tensors
from .kinds import IDENTITY_LAYERS, activation_name, kind_of
from .read import Call, TensorRef, Trace, input_names, trace
from .registry import is_registered, known_type, lookup, plain_type, register_kind, register_like, register_whole
from .scores import best_class, classes_of, per_class
from .soundness import require_finite, require_sound
from .tasks import as_task, output_activation, read_tasks, score_meaning

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
    "as_task",
    "best_class",
    "classes_of",
    "copy_by_settings",
    "input_names",
    "is_registered",
    "kind_of",
    "known_type",
    "layer_settings",
    "lookup",
    "non_negative_tensors",
    "output_activation",
    "per_class",
    "plain_type",
    "read_tasks",
    "register_kind",
    "register_like",
    "register_whole",
    "require_finite",
    "require_sound",
    "score_meaning",
    "trace",
]
