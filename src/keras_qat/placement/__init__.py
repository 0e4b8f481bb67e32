"""Where the Q/DQ pairs go, and why."""

from keras_qat.placement.explain import explain
from keras_qat.placement.plan import plan

__all__ = ["explain", "plan"]
