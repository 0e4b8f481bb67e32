"""What a rule selects: layers by name or glob, by type, by kind, or by a predicate; and how each is spelled in JSON.

    "conv5_*"               a name, or a glob as of the shell (`fnmatch`), case-sensitive
    {"type": "MaxPooling2D"}  a layer type, by the name it is registered with in Keras; subclasses match too
    {"kind": "max pool"}    an `OpKind`

A predicate is code, so it has no spelling.

A rule about layers: what it selects, and what it sets for them.
"""

import difflib
from collections.abc import Callable
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from functools import singledispatch
from typing import Any, Literal

import keras

from keras_qat.errors import UserError
from keras_qat.graph import Graph, Node
from keras_qat.types import OpKind

Selector = str | OpKind | type | Callable[[Node], bool]
"""A layer name or glob, a kind, a layer type, or a function of the node."""


@singledispatch
def matches(selector: Any, node: Node) -> bool:
    """Whether the selector selects a node.

    A name is that of the layer, or of one call of a shared layer (`"shared#2"`).

    Example:
        >>> node = Node("conv5_1", OpKind.CONV, "conv5_1", ("image",), ("conv5_1",), layer_type=keras.layers.Conv2D)
        >>> [matches(s, node) for s in ("conv5_*", OpKind.CONV, keras.layers.Conv2D, keras.layers.Dense)]
        [True, True, True, False]
    """
    return bool(selector(node))


@matches.register
def _matches_name(selector: str, node: Node) -> bool:
    return fnmatchcase(node.layer, selector) or fnmatchcase(node.name, selector)


@matches.register
def _matches_kind(selector: OpKind, node: Node) -> bool:
    return node.kind is selector


@matches.register
def _matches_type(selector: type, node: Node) -> bool:
    return node.layer_type is not None and issubclass(node.layer_type, selector)


@singledispatch
def spell(selector: Any) -> Any:
    """The selector as JSON.

    Raises:
        UserError: it is a function, or a type that Keras can't find by its registered name.

    Example:
        >>> spell("conv5_*"), spell(OpKind.ADD), spell(keras.layers.Dense)
        ('conv5_*', {'kind': 'add'}, {'type': 'Dense'})
    """
    raise UserError(
        f"A predicate is code and can't be saved. Received: {describe(selector)}. "
        "Select by name, glob, layer type or OpKind, or pass the overrides in Python."
    )


@spell.register
def _spell_name(selector: str) -> str:
    return selector


@spell.register
def _spell_kind(selector: OpKind) -> dict[str, str]:
    return {"kind": selector.value}


@spell.register
def _spell_type(selector: type) -> dict[str, str]:
    name = keras.saving.get_registered_name(selector)
    if _find_type(name) is not selector:
        raise UserError(
            f"The layer type can't be saved by name: Keras doesn't know it. Received: {selector.__module__}."
            f"{selector.__qualname__}. Register it with `keras.saving.register_keras_serializable`, or select by name."
        )
    return {"type": name}


def read_selector(spelling: Any) -> Selector:
    """The selector of a JSON spelling.

    Raises:
        UserError: the spelling is none of those above, or names an unknown kind or type.

    Example:
        >>> read_selector({"kind": "add"})
        <OpKind.ADD: 'add'>
    """
    match spelling:
        case str():
            return spelling
        case {"kind": str(kind), **rest} if not rest:
            try:
                return OpKind(kind)
            except ValueError:
                known = ", ".join(k.value for k in OpKind)
                raise UserError(f"There is no such kind. Received: {kind!r}. Known: {known}.") from None
        case {"type": str(name), **rest} if not rest:
            found = _find_type(name)
            if found is None:
                raise UserError(
                    f"Keras knows no layer type of that name. Received: {name!r}. Give the name of a class of "
                    "keras.layers, or import the module that registers your own."
                )
            return found
        case _:
            raise UserError(
                f'A rule selects by a name, {{"type": …}}, {{"kind": …}} or a list of those. Received: {spelling!r}.'
            )


def describe(selector: Selector) -> str:
    """The selector as it reads in a reason.

    Example:
        >>> describe("conv5_*"), describe(OpKind.ADD), describe(keras.layers.Dense)
        ("'conv5_*'", "kind 'add'", 'type Dense')
    """
    match selector:
        case OpKind():
            return f"kind {selector.value!r}"
        case str():
            return repr(selector)
        case type():
            return f"type {selector.__name__}"
        case _:
            return f"predicate {getattr(selector, '__name__', type(selector).__name__)}"


def close_to(selector: Selector, graph: Graph) -> str:
    """What the user may have meant by a selector that selects nothing; a sentence."""
    if isinstance(selector, str) and not isinstance(selector, OpKind):
        names = dict.fromkeys(node.layer for node in graph.nodes)
        close = difflib.get_close_matches(selector, names, n=3)
        return f"Did you mean {', '.join(map(repr, close))}?" if close else f"Layers: {_some(list(names))}."
    if isinstance(selector, type):
        types = dict.fromkeys(node.layer_type.__name__ for node in graph.nodes if node.layer_type)
        return f"Layer types of this model: {', '.join(types)}."
    return f"Kinds in this model: {', '.join(dict.fromkeys(node.kind.value for node in graph.nodes))}."


def _some(names: list[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _find_type(name: str) -> type | None:
    """The class that Keras knows by a registered name: the user's first, then its own layers."""
    found = keras.saving.get_registered_object(name) or getattr(keras.layers, name, None)
    return found if isinstance(found, type) else None


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
