"""One table per engine: what it wants quantized, and in which integers."""

from keras_qat.targets.registry import find_target, register_target
from keras_qat.targets.table import describe_target
from keras_qat.targets.target import Inputs, OpRule, Target

__all__ = ["Inputs", "OpRule", "Target", "describe_target", "find_target", "register_target"]
