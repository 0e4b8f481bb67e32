"""Where the Q/DQ pairs go, and why."""

from keras_qat.placement.explain import explain
from keras_qat.placement.overrides import Overrides
from keras_qat.placement.plan import plan
from keras_qat.placement.rule import Rule

__all__ = ["Overrides", "Rule", "explain", "plan"]
