"""The registry of kinds, by the type of a layer or operation, and the rule for which subclasses count as their parent.

This module does not import Keras: the layers of keras-qat register themselves while Keras is still being imported.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from keras_qat.types import OpKind

Classifier = Callable[[Any], OpKind | None]
"""(layer or operation) → its kind, which depends on its configuration; `None` if its `call` must be read."""

KINDS: dict[type, Classifier] = {}

_HARMLESS = frozenset(
    {
        "__annotations__",
        "__dict__",
        "__doc__",
        "__firstlineno__",
        "__init__",
        "__module__",
        "__orig_bases__",
        "__parameters__",
        "__qualname__",
        "__repr__",
        "__static_attributes__",
        "__str__",
        "__weakref__",
        "build_from_config",
        "from_config",
        "get_build_config",
        "get_config",
        "load_own_variables",
        "save_own_variables",
    }
)
"""What a class may define anew and still compute what its parent computes."""

T = TypeVar("T")


def register_kind(layer_type: type, kind: OpKind | Classifier) -> None:
    """Register the kind of a layer type, and of the subclasses that compute the same.

    Args:
        layer_type: a subclass of `keras.layers.Layer`, or the class of an operation of `keras.ops`.
        kind: its kind, or a function of the layer where the kind depends on the layer's configuration.

    Example:
        >>> class Scaled:
        ...     pass
        >>> register_kind(Scaled, OpKind.SCALE)
        >>> KINDS[Scaled](Scaled())
        <OpKind.SCALE: 'scale'>
    """
    KINDS[layer_type] = kind if callable(kind) and not isinstance(kind, OpKind) else lambda _: OpKind(kind)


def is_registered(layer_type: type) -> bool:
    """Whether exactly this type has a kind.

    Example:
        >>> is_registered(int)
        False
    """
    return layer_type in KINDS


def register_like(layer_type: type, model_type: type) -> None:
    """Register a layer type whose kind is that of another, which may be registered later.

    Args:
        layer_type: the type to register, such as one that computes with a quantized kernel.
        model_type: the type whose kind it has.

    Example:
        >>> class Float:
        ...     pass
        >>> class Quantized(Float):
        ...     pass
        >>> register_like(Quantized, Float)
        >>> register_kind(Float, OpKind.DENSE)
        >>> KINDS[Quantized](Quantized())
        <OpKind.DENSE: 'dense'>
    """
    KINDS[layer_type] = lambda layer: KINDS[model_type](layer) if model_type in KINDS else OpKind.OTHER


def register_whole(layer_type: type) -> None:
    """Register a layer type as one node of a graph, which isn't read through; its kind is `OTHER` if it has none yet.

    Args:
        layer_type: the type of a layer or operation.

    Example:
        >>> class Whole:
        ...     pass
        >>> register_whole(Whole)
        >>> KINDS[Whole](Whole())
        <OpKind.OTHER: 'other'>
    """
    KINDS.setdefault(layer_type, lambda _: OpKind.OTHER)


def lookup(operation: Any, table: Mapping[type, T]) -> T:
    """The entry of a table for a layer or operation, of which `known_type` knows that there is one.

    Args:
        operation: a layer, or an operation of `keras.ops`.
        table: any values by type.

    Raises:
        KeyError: If there is no entry for its type or for a parent that computes the same.
    """
    known = known_type(operation, table)
    if known is None:
        raise KeyError(type(operation))
    return table[known]


def plain_type(layer: Any) -> type:
    """The registered type of a layer, which is a parent of its own type if that computes the same; else its own type.

    Example:
        >>> class Plain:
        ...     pass
        >>> class Named(Plain):
        ...     pass
        >>> register_kind(Plain, OpKind.OTHER)
        >>> plain_type(Named()).__name__
        'Plain'
    """
    return known_type(layer, KINDS) or type(layer)


def known_type(operation: Any, table: Mapping[type, T]) -> type | None:
    """The type in a table whose entry holds for a layer or operation.

    An entry holds for objects of exactly its type, and of subclasses that change nothing that it computes: these define
    `__init__`, `get_config` and new methods only, and no attribute that the parent has too.

    Args:
        operation: a layer, or an operation of `keras.ops`.
        table: any values by type.

    Returns:
        A key of the table, or `None`.

    Example:
        >>> class Scaled:
        ...     def call(self, x):
        ...         return 2 * x
        >>> class Named(Scaled):
        ...     def __init__(self, name):
        ...         self.name = name
        >>> class Shifted(Scaled):
        ...     def call(self, x):
        ...         return super().call(x) + 1
        >>> known_type(Named("a"), {Scaled: 0}), known_type(Shifted(), {Scaled: 0})
        (<class 'keras_qat.graph.registry.Scaled'>, None)
    """
    if "call" in vars(operation):  # replaced in this object alone
        return None
    line = type(operation).__mro__
    for index, one in enumerate(line):
        if one in table:
            return one
        inherited = {name for base in line[index + 1 :] for name in vars(base)}
        if any(name in inherited and name not in _HARMLESS for name in vars(one)):
            return None
    return None
