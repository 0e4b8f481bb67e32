from .engine import Engine
from .registry import (
    ENGINES,
    describe_target,
    find_engine,
    find_target,
    find_targets,
    judges_of,
    register_target,
)
from .target import Inputs, Limits, OpRule, Target

__all__ = [
    "ENGINES",
    "Engine",
    "Inputs",
    "Limits",
    "OpRule",
    "Target",
    "describe_target",
    "find_engine",
    "find_target",
    "find_targets",
    "judges_of",
    "register_target",
]
