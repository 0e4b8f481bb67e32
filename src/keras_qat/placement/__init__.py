"""Where the Q/DQ pairs go, and why."""

from keras_qat.placement.explain import explain
from keras_qat.placement.overrides import Overrides
from keras_qat.placement.placement_file import PLACEMENT_FILE, load_placement, placement_dict, save_placement
from keras_qat.placement.plan import plan
from keras_qat.placement.rule import Rule

__all__ = [
    "PLACEMENT_FILE",
    "Overrides",
    "Rule",
    "explain",
    "load_placement",
    "placement_dict",
    "plan",
    "save_placement",
]
