"""Which Keras nodes an ONNX node stands for, in its `metadata_props`.

Passes merge and rename: a Conv may stand for a padding, a convolution and its batch norm. With the names kept on the
node, a file can be held to the placement, which speaks of Keras nodes.
"""

import json
from collections.abc import Iterable

import onnx_ir as ir

KEY = "keras_qat.nodes"

_HELPER = "keras_qat.helper"


def mark(node: ir.Node, names: Iterable[str]) -> None:
    """Say that `node` stands for these Keras nodes too.

    Example:
        >>> conv = ir.node("Conv", [])
        >>> mark(conv, ["conv"])
        >>> mark(conv, ["batch_norm", "conv"])
        >>> keras_nodes(conv)
        ('conv', 'batch_norm')
    """
    node.metadata_props[KEY] = json.dumps(list(dict.fromkeys((*keras_nodes(node), *names))))


def mark_helper(node: ir.Node) -> None:
    """Say that `node` stands for no Keras node: a pass put it in, and it only hands on numbers.

    Example:
        >>> pool = ir.node("MaxPool", [])
        >>> mark_helper(pool)
        >>> is_helper(pool)
        True
    """
    node.metadata_props[_HELPER] = "true"


def is_helper(node: ir.Node) -> bool:
    """Whether a pass put `node` in, to hand on numbers."""
    return _HELPER in node.metadata_props


def keras_nodes(node: ir.Node) -> tuple[str, ...]:
    """The Keras nodes that `node` stands for; none where nobody said so."""
    try:
        names = json.loads(node.metadata_props.get(KEY, "[]"))
    except json.JSONDecodeError:
        return ()
    return tuple(str(name) for name in names) if isinstance(names, list) else ()
