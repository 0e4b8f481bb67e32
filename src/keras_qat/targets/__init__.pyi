from .registry import (
    ENGINES,
    describe_target,
    find_engine,
    find_target,
    find_targets,
    judges_of,
    register_target,
)
from .target import Engine, Inputs, Limits, OpRule, Target

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
