"""What a rule selects: layers by name or glob, by type, by kind, or by a predicate; and how each is spelled in JSON.

    "conv5_*"               a name, or a glob as of the shell (`fnmatch`), case-sensitive
    {"type": "MaxPooling2D"}  a layer type, by the name it is registered with in Keras; subclasses match too
    {"kind": "max pool"}    an `OpKind`

A predicate is code, so it has no spelling.
"""

import difflib
from collections.abc import Callable
from fnmatch import fnmatchcase
from functools import singledispatch
from typing import Any

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
