"""A rule about layers: which layers it selects, what it sets for them, and its form in JSON.

Layers are selected by name, type or kind, or by a predicate. In JSON:

    "conv5_*"                 a layer name, or a glob as in a shell (`fnmatch`), case-sensitive
    {"type": "MaxPooling2D"}  a layer type, by the name under which Keras has registered it; subclasses match too
    {"kind": "max pool"}      an `OpKind`

A predicate is code and has no form in JSON.
"""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from typing import Any, Literal

import keras

from keras_qat.errors import UserError, require_whole
from keras_qat.graph import Graph, Node
from keras_qat.text import callable_name, first_few
from keras_qat.types import BITS, OpKind

Selector = str | OpKind | type | Callable[[Node], bool]
"""A layer name or glob, a kind, a layer type, or a predicate over nodes."""

AsTarget = Literal["target"]
"""What the target's table says."""

_WIDTHS = (BITS[0], BITS[-1])

_SETTINGS = ("inputs", "output", "weights", "weight_bits")


@dataclass(frozen=True)
class Rule:
    """What to quantize of the layers that it selects. A setting of `None` leaves the matter as it is.

    Args:
        select: a layer name or glob, a layer type, an `OpKind`, a predicate over `Node`, or several in a tuple.
        inputs: `True` for a Q/DQ pair on every input, `False` for none, a tuple of indices for exactly these inputs,
            `"target"` for what the target's table says.
        output: `True` for a pair in front of every reader of the layer's output, `False` for none. For a layer inside a
            fused kernel, this is the output of the kernel.
        weights: whether the kernel is quantized. A shared layer has one kernel for all its calls.
        weight_bits: width of the kernel's integers, 2 to 8.
        optional: whether the rule may match nothing, which is an error otherwise, since it is usually a typing error.

    Raises:
        UserError: If the rule selects or sets nothing, or a setting has an invalid value.

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
        """Turn lists into tuples, and check the settings."""
        for name in ("select", "inputs"):
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.weight_bits is not None:
            object.__setattr__(self, "weight_bits", require_whole("weight_bits", self.weight_bits, *_WIDTHS))
        problem = _problem(self)
        if problem:
            raise UserError(f"{problem} Received: Rule({self}).")

    def __str__(self) -> str:
        """The rule as reasons and messages quote it."""
        settings = ", ".join(f"{name}={value!r}" for name, value in self.settings.items())
        return f"{', '.join(map(describe, self.selectors))}: {settings}"

    @property
    def selectors(self) -> tuple[Selector, ...]:
        """The selectors, one or several."""
        return self.select if isinstance(self.select, tuple) else (self.select,)

    @property
    def settings(self) -> Mapping[str, Any]:
        """The settings that are not `None`, by name."""
        return {name: getattr(self, name) for name in _SETTINGS if getattr(self, name) is not None}

    def selects(self, node: Node) -> bool:
        """Whether any of the selectors matches a node."""
        return any(matches(selector, node) for selector in self.selectors)

    @classmethod
    def keep_float(cls, *select: Selector) -> "Rule":
        """A rule that quantizes neither inputs nor weights; readers of the layer's output may still get a pair."""
        return cls(select, inputs=False, weights=False)

    @classmethod
    def as_target(cls, *select: Selector) -> "Rule":
        """A rule that follows the target's table: for partial quantization, or to undo an earlier rule."""
        return cls(select, inputs="target", output="target", weights="target")


def _problem(rule: Rule) -> str | None:
    """What is wrong with a rule, as a sentence; `None` if nothing is."""
    if not rule.selectors:
        return "A rule must select something."
    if not rule.settings:
        return f"A rule must set one of {', '.join(_SETTINGS)}."
    for name in ("inputs", "output", "weights"):
        value = getattr(rule, name)
        indices = name == "inputs" and isinstance(value, tuple)
        if indices and not all(type(i) is int and i >= 0 for i in value):
            return "`inputs` must hold numbers of inputs, counted from 0."
        if not indices and not (value is None or isinstance(value, bool) or value == "target"):
            return f"`{name}` must be True, False or 'target'{' or a tuple of indices' if name == 'inputs' else ''}."
    return "Float weights have no bits." if rule.weight_bits is not None and rule.weights is False else None


def matches(selector: Selector, node: Node) -> bool:
    """Whether a selector selects a node.

    Args:
        selector: a name is compared with that of the layer, and with that of one call of a shared layer (`"shared#2"`).
        node: the call of a layer.

    Example:
        >>> node = Node("conv5_1", OpKind.CONV, "conv5_1", ("image",), ("conv5_1",), layer_type=keras.layers.Conv2D)
        >>> [matches(s, node) for s in ("conv5_*", OpKind.CONV, keras.layers.Conv2D, keras.layers.Dense)]
        [True, True, True, False]
    """
    match selector:
        case OpKind():
            return node.kind is selector
        case str():
            return fnmatchcase(node.layer, selector) or fnmatchcase(node.name, selector)
        case type():
            return node.layer_type is not None and issubclass(node.layer_type, selector)
        case _:
            return bool(selector(node))


def describe(selector: Selector) -> str:
    """A selector as reasons and messages quote it.

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
            return f"predicate {callable_name(selector)}"


def suggestion(selector: Selector, graph: Graph) -> str:
    """What could be selected instead of a selector that matches nothing.

    Args:
        selector: the selector.
        graph: the graph in which it matches no node.

    Returns:
        A sentence with similar layer names, or with the names, types or kinds of the graph.
    """
    if isinstance(selector, str) and not isinstance(selector, OpKind):
        names = dict.fromkeys(node.layer for node in graph.nodes)
        close = difflib.get_close_matches(selector, names, n=3)
        return f"Did you mean {', '.join(map(repr, close))}?" if close else f"Layers: {first_few(names, most=8)}."
    if isinstance(selector, type):
        types = dict.fromkeys(node.layer_type.__name__ for node in graph.nodes if node.layer_type)
        return f"Layer types of this model: {', '.join(types)}."
    return f"Kinds in this model: {', '.join(dict.fromkeys(node.kind.value for node in graph.nodes))}."


def rule_to_json(rule: Rule) -> dict[str, Any]:
    """A rule as a JSON object.

    Args:
        rule: any rule without a predicate.

    Raises:
        UserError: If the rule selects by a predicate, or by a layer type that Keras can't find by its registered name.

    Example:
        >>> rule_to_json(Rule(("conv5_*", OpKind.ADD), inputs=False))
        {'select': ['conv5_*', {'kind': 'add'}], 'inputs': False}
    """
    selectors = [selector_to_json(selector) for selector in rule.selectors]
    select = selectors if isinstance(rule.select, tuple) else selectors[0]
    return {"select": select, **rule.settings, **({"optional": True} if rule.optional else {})}


def rule_from_json(value: Any) -> Rule:
    """The rule of a JSON object, as `rule_to_json` makes it.

    Args:
        value: the parsed JSON.

    Raises:
        UserError: If `value` is not an object, has an unknown key, names an unknown kind or type, or gives a setting an
            invalid value.

    Example:
        >>> rule_from_json({"select": "conv5_*", "weight_bits": 4})
        Rule(select='conv5_*', inputs=None, output=None, weights=None, weight_bits=4, optional=False)
    """
    check_keys(value, {field.name for field in fields(Rule)}, "A rule")
    select = value.get("select", [])
    selectors = tuple(map(selector_from_json, select)) if isinstance(select, list) else selector_from_json(select)
    return Rule(**{**value, "select": selectors})


def check_keys(value: Any, known: set[str], what: str) -> None:
    """Check that a JSON value is an object without unknown keys.

    Args:
        value: the parsed JSON.
        known: the keys that it may have.
        what: the subject of the message.

    Raises:
        UserError: If `value` is not an object, or has an unknown key; the message lists the known ones.
    """
    if not isinstance(value, dict) or not set(value) <= known:
        raise UserError(f"{what} in JSON has the keys {', '.join(sorted(known))}. Received: {value!r}.")


def selector_to_json(selector: Selector) -> Any:
    """A selector as JSON.

    Raises:
        UserError: If the selector is a predicate, or a layer type that Keras can't find by its registered name.

    Example:
        >>> selector_to_json("conv5_*"), selector_to_json(OpKind.ADD), selector_to_json(keras.layers.Dense)
        ('conv5_*', {'kind': 'add'}, {'type': 'Dense'})
    """
    match selector:
        case OpKind():
            return {"kind": selector.value}
        case str():
            return selector
        case type():
            name = keras.saving.get_registered_name(selector)
            if _layer_type(name) is selector:
                return {"type": name}
            raise UserError(
                f"The layer type can't be saved by name: Keras doesn't know it. Received: {selector.__module__}."
                f"{selector.__qualname__}. Register it with `keras.saving.register_keras_serializable`, or select by "
                "name."
            )
        case _:
            raise UserError(
                f"A predicate is code and can't be saved. Received: {describe(selector)}. "
                "Select by name, glob, layer type or OpKind, or pass the overrides in Python."
            )


def selector_from_json(value: Any) -> Selector:
    """The selector of a JSON value.

    Raises:
        UserError: If the value has none of the forms above, or names an unknown kind or type.

    Example:
        >>> selector_from_json({"kind": "add"})
        <OpKind.ADD: 'add'>
    """
    match value:
        case str():
            return value
        case {"kind": str(kind), **rest} if not rest:
            try:
                return OpKind(kind)
            except ValueError:
                known = ", ".join(k.value for k in OpKind)
                raise UserError(f"There is no such kind. Received: {kind!r}. Known: {known}.") from None
        case {"type": str(name), **rest} if not rest:
            layer_type = _layer_type(name)
            if layer_type is None:
                raise UserError(
                    f"Keras knows no layer type of that name. Received: {name!r}. Give the name of a class of "
                    "keras.layers, or import the module that registers your own."
                )
            return layer_type
        case _:
            raise UserError(
                f'A rule selects by a name, {{"type": …}}, {{"kind": …}} or a list of those. Received: {value!r}.'
            )


def _layer_type(name: str) -> type | None:
    """The class that Keras has registered under a name, or else the class of that name in `keras.layers`."""
    layer_type = keras.saving.get_registered_object(name) or getattr(keras.layers, name, None)
    return layer_type if isinstance(layer_type, type) else None
