from .explanation import Arrow, Flowing, Picture, describe_spec, explain, picture, require_ranges, why_nothing
from .file import PLACEMENT_FILE, load_placement, placement_dict, save_placement
from .flow import MOVES_NUMBERS, WEIGHTED
from .overrides import Overrides
from .planning import plan
from .rules import Rule, rule_from_json, rule_to_json

__all__ = [
    "MOVES_NUMBERS",
    "PLACEMENT_FILE",
    "WEIGHTED",
    "Arrow",
    "Flowing",
    "Overrides",
    "Picture",
    "Rule",
    "describe_spec",
    "explain",
    "load_placement",
    "picture",
    "placement_dict",
    "plan",
    "require_ranges",
    "rule_from_json",
    "rule_to_json",
    "save_placement",
    "why_nothing",
]
