"""The order in which a model's calls are read: depth first from the outputs, arguments from the left, inputs first.

Keras's own order goes by the distance from the output, which a FakeQuantize layer on one branch changes. Here a layer
put on an edge changes nothing for the others, so the second call of a shared layer stays the second (`shared#2`), in
the float model, in the quantized one and in its file.
"""

from collections.abc import Iterator
from typing import Any


def calls_in_order(functional: Any) -> Iterator[Any]:
    """The Keras nodes of a Functional model, those that make a node's inputs before it.

    Args:
        functional: a Functional `keras.Model`.

    Example:
        >>> import keras
        >>> x = keras.Input((4,), name="x")
        >>> shared = keras.layers.Dense(4)
        >>> model = keras.Model(x, keras.layers.Add()([shared(keras.layers.ReLU(name="relu")(x)), shared(x)]))
        >>> [type(node.operation).__name__ for node in calls_in_order(model)]
        ['InputLayer', 'ReLU', 'Dense', 'Dense', 'Add']
    """
    seen: set[int] = set()
    # A stack of its own: recursion would end at networks a thousand layers deep.
    stack = [(_maker(tensor), False) for tensor in reversed(functional.outputs)]
    inside = {id(node) for nodes in functional._nodes_by_depth.values() for node in nodes}  # noqa: SLF001
    while stack:
        node, visited = stack.pop()
        if visited:
            yield node
        elif id(node) not in seen and id(node) in inside:
            seen.add(id(node))
            above = () if node.is_input else node.arguments.keras_tensors
            stack.append((node, True))
            stack.extend((_maker(tensor), False) for tensor in reversed(above))


def _maker(tensor: Any) -> Any:
    """The call that made a Keras tensor."""
    operation, index, _ = tensor._keras_history  # noqa: SLF001
    return operation._inbound_nodes[index]  # noqa: SLF001
