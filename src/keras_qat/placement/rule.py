"""A rule about layers: what it selects, and what it sets for them."""

from dataclasses import dataclass, fields
from typing import Any, Literal

from keras_qat.errors import UserError
from keras_qat.graph import Node
from keras_qat.placement.selection import Selector, describe, matches, read_selector, spell

AsTarget = Literal["target"]
"""As the target's table has it."""

_SETTINGS = ("inputs", "output", "weights", "weight_bits")


@dataclass(frozen=True)
class Rule:
    """What to do with the layers that it selects. A setting left at `None` is left as it is.

    Args:
        select: a layer name or glob, a layer type, an `OpKind`, a predicate over `Node`, or several in a tuple.
        inputs: `True` for a Q/DQ pair on every input, `False` for none, a tuple for exactly these inputs,
            `"target"` for what the target's table says.
        output: `True` for a pair on the way to every reader of what the layer makes, `False` for none. A layer
            inside a fused kernel speaks for the output of the kernel.
        weights: whether the kernel is quantized. A shared layer has one kernel for all its calls.
        weight_bits: width of the kernel's integers, 2 to 8.
        optional: let the rule match nothing; otherwise that is an error, since it usually is a typing error.

    Raises:
        UserError: the rule sets nothing, or a setting has a value that it can't have.

    Example:
        >>> str(Rule("conv5_*", inputs=False, weights=False))
        "'conv5_*': inputs=False, weights=False"
    """

    select: Selector | tuple[Selector, ...]
    inputs: bool | AsTarget | tuple[int, ...] | None = None
    output: bool | AsTarget | None = None
    weights: bool | AsTarget | None = None
    weight_bits: int | None = None
    optional: bool = False

    def __post_init__(self) -> None:
        """Take lists for tuples, refuse what means nothing."""
        for name in ("select", "inputs"):
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        problem = _problem(self)
        if problem:
            raise UserError(f"{problem} Received: Rule({self}).")

    def __str__(self) -> str:
        """The rule as it reads in a reason."""
        said = {name: getattr(self, name) for name in _SETTINGS if getattr(self, name) is not None}
        return f"{', '.join(map(describe, self.selectors))}: {', '.join(f'{k}={v!r}' for k, v in said.items())}"

    @property
    def selectors(self) -> tuple[Selector, ...]:
        """What it selects by, one or several."""
        return self.select if isinstance(self.select, tuple) else (self.select,)

    def selects(self, node: Node) -> bool:
        """Whether any selector matches."""
        return any(matches(selector, node) for selector in self.selectors)

    @classmethod
    def keep_float(cls, *select: Selector) -> "Rule":
        """Neither inputs nor weights are quantized; what reads the layer's output still may ask for a pair there."""
        return cls(select, inputs=False, weights=False)

    @classmethod
    def as_target(cls, *select: Selector) -> "Rule":
        """Everything as the target's table has it: for partial quantization, or to take back an earlier rule."""
        return cls(select, inputs="target", output="target", weights="target")


def _problem(rule: Rule) -> str | None:
    """What is wrong with the values of a rule, and what to do."""
    if not rule.selectors:
        return "A rule must select something."
    if all(getattr(rule, name) is None for name in _SETTINGS):
        return f"A rule must set one of {', '.join(_SETTINGS)}."
    for name in ("inputs", "output", "weights"):
        value = getattr(rule, name)
        indices = name == "inputs" and isinstance(value, tuple)
        if indices and not all(type(i) is int and i >= 0 for i in value):
            return "`inputs` must hold numbers of inputs, counted from 0."
        if not indices and not (value is None or isinstance(value, bool) or value == "target"):
            return f"`{name}` must be True, False or 'target'{' or a tuple of indices' if name == 'inputs' else ''}."
    bits = rule.weight_bits
    if bits is not None and (type(bits) is not int or not 2 <= bits <= 8):  # noqa: PLR2004
        return "`weight_bits` must be from 2 to 8."
    return "Float weights have no bits." if bits is not None and rule.weights is False else None


def rule_to_json(rule: Rule) -> dict[str, Any]:
    """The rule as a JSON object.

    Raises:
        UserError: it selects by a predicate.
    """
    spelled = [spell(selector) for selector in rule.selectors]
    select = spelled if isinstance(rule.select, tuple) else spelled[0]
    said = {name: getattr(rule, name) for name in _SETTINGS if getattr(rule, name) is not None}
    return {"select": select, **said, **({"optional": True} if rule.optional else {})}


def rule_from_json(value: Any) -> Rule:
    """What `rule_to_json` made.

    Raises:
        UserError: an unknown key, kind or type, or a value that a setting can't have.
    """
    check_keys(value, {field.name for field in fields(Rule)}, "A rule")
    select = value.get("select", [])
    selected = tuple(map(read_selector, select)) if isinstance(select, list) else read_selector(select)
    return Rule(**{**value, "select": selected})


def check_keys(value: Any, known: set[str], what: str) -> None:
    """Refuse what isn't a JSON object of the known keys.

    Raises:
        UserError: naming the known keys.
    """
    if not isinstance(value, dict) or not set(value) <= known:
        raise UserError(f"{what} in JSON has the keys {', '.join(sorted(known))}. Received: {value!r}.")
