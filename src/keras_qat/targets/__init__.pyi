from .engines import Engine, find_engines
from .registry import describe_target, find_target, register_target
from .target import Inputs, OpRule, Target

__all__ = [
    "Engine",
    "Inputs",
    "OpRule",
    "Target",
    "describe_target",
    "find_engines",
    "find_target",
    "register_target",
]
