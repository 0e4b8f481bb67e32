"""What the `call` of a layer does: the calls of other layers and of `keras.ops` that it makes on symbolic tensors.

The Python code of the `call` runs as in `predict`, with `training=False`. Conditions on shapes and settings are decided
by it; a condition on numbers can't be, and code outside of Keras can't run: then there is no graph to read, and the
error says why.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import keras
from keras.src import backend
from keras.src.backend.common.variables import Variable  # the class that has the operators of every backend's weights
from keras.src.ops.node import Node  # Keras's record of a symbolic call

from keras_qat.text import one_line


class UnreadableError(Exception):
    """The `call` of a layer can't run on symbolic tensors; the text says why."""


@dataclass(frozen=True, eq=False)
class Recorded:
    """One call of a layer or operation on symbolic tensors.

    Args:
        operation: the layer or operation.
        args: the positional arguments.
        kwargs: the keyword arguments.
        outputs: the symbolic tensors that the call made.
    """

    operation: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    outputs: tuple[Any, ...]

    @property
    def tensors(self) -> list[Any]:
        """The symbolic tensors among the arguments."""
        return symbols_of((self.args, self.kwargs))


@dataclass(frozen=True)
class Captured:
    """The calls that a layer's `call` makes.

    Args:
        inputs: the symbolic tensors that it was called with.
        nodes: each call that an output needs, after those that make its inputs.
        outputs: the structure of the outputs: symbolic tensors that the nodes made, constants, and `None`.
    """

    inputs: tuple[Any, ...]
    nodes: tuple[Recorded, ...]
    outputs: Any

    @property
    def last(self) -> tuple[Recorded, ...]:
        """The nodes that make an output."""
        made = {id(tensor) for tensor in keras.tree.flatten(self.outputs)}
        return tuple(node for node in self.nodes if any(id(tensor) in made for tensor in node.outputs))


def recorded(nodes: Iterable[Any]) -> tuple[Recorded, ...]:
    """Keras's records of calls as values, without those of the inputs of a model."""
    return tuple(
        Recorded(node.operation, node.arguments.args, node.arguments.kwargs, tuple(node.outputs))
        for node in nodes
        if not node.is_input
    )


def symbols_of(structure: Any) -> list[Any]:
    """The symbolic tensors of a structure, in order."""
    return [x for x in keras.tree.flatten(structure) if isinstance(x, keras.KerasTensor)]


def capture(layer: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Captured:
    """Run the `call` of a layer on symbolic tensors.

    Args:
        layer: the layer, built. It is not changed.
        args: the positional arguments of its call, with new `KerasTensor`s.
        kwargs: the keyword arguments, likewise.

    Raises:
        UnreadableError: If the code fails on symbolic tensors, or an output is neither a tensor nor `None`.

    Example:
        >>> class Halve(keras.layers.Layer):
        ...     def call(self, x):
        ...         return keras.ops.relu(x) / 2
        >>> captured = capture(Halve(), (keras.KerasTensor((None, 4)),), {})
        >>> [type(node.operation).__name__ for node in captured.nodes]
        ['Relu', 'TrueDivide']
    """
    given = symbols_of((args, dict(kwargs)))
    with unchanged(layer), _symbolic_operators(), _any_layer():
        try:
            outputs = call_at_inference(layer, layer.call, args, kwargs)
        except Exception as error:  # whatever the user's code raises
            raise UnreadableError(
                f"its call fails on symbolic tensors ({type(error).__name__}: {one_line(error)}){_hint(error, given)}"
            ) from error
        made = symbols_of(outputs)
        if not all(
            x is None or isinstance(x, keras.KerasTensor) or keras.ops.is_tensor(x) for x in keras.tree.flatten(outputs)
        ):
            raise UnreadableError("an output of its call is not a tensor")
        nodes = nodes_behind(made, given)
    return Captured(tuple(given), nodes, outputs)


def _hint(error: Exception, given: list[Any]) -> str:
    """What to try where the code computes with a size that is open."""
    if "None" not in str(error) or not any(None in tensor.shape for tensor in given):
        return ""
    return (
        "; an open size is None there, the batch too: where the code computes with it, fix it by a model around, "
        "`x = keras.Input(batch_shape=(1, …)); keras.Model(x, model(x))`"
    )


def call_at_inference(
    layer: Any, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Any:
    """Call `function` as Keras's `predict` calls a layer: with the types of the layer's policy, and not in training.

    Args:
        layer: the layer.
        function: its `call`, or a function that runs it.
        args: the positional arguments.
        kwargs: the keyword arguments, without `training`.

    Returns:
        What `function` returns.
    """

    def convert(x: Any) -> Any:
        is_tensor = isinstance(x, keras.KerasTensor) or keras.ops.is_tensor(x)
        return layer.dtype_policy.convert_input(x, layer.autocast, layer.input_dtype) if is_tensor else x

    mixed = layer.compute_dtype != layer.variable_dtype
    with backend.AutocastScope(layer.compute_dtype) if mixed else nullcontext():
        if layer._convert_input_args:  # noqa: SLF001 - Keras's own `__call__` asks it
            args, kwargs = keras.tree.map_structure(convert, (args, dict(kwargs)))
        says = {"training": False} if layer._call_has_training_arg else {}  # noqa: SLF001
        context = layer._get_call_context()  # noqa: SLF001 - which sublayers without the argument ask
        before = context.get_value("training")
        context.set_value("training", False)
        try:
            return function(*args, **kwargs, **says)
        finally:
            context.set_value("training", before)
            layer._maybe_reset_call_context()  # noqa: SLF001


_OPERATORS: Mapping[str, Callable[..., Any]] = {
    "__add__": keras.ops.add,
    "__sub__": keras.ops.subtract,
    "__mul__": keras.ops.multiply,
    "__truediv__": keras.ops.true_divide,
    "__floordiv__": keras.ops.floor_divide,
    "__mod__": keras.ops.mod,
    "__pow__": keras.ops.power,
    "__matmul__": keras.ops.matmul,
}
"""What each operator with a weight on its left side computes."""


@contextmanager
def _symbolic_operators() -> Iterator[None]:
    """Let the operators of weights take symbolic tensors in the block, as in `self.scale * x`.

    Keras's own pass on to the backend, which refuses symbolic tensors; for all else they stay what they are.
    """
    before = {name: getattr(Variable, name) for name in _OPERATORS}

    def operator(name: str) -> Callable[..., Any]:
        def compute(self: Any, other: Any) -> Any:
            symbolic = isinstance(other, keras.KerasTensor)
            return _OPERATORS[name](self, other) if symbolic else before[name](self, other)

        return compute

    try:
        for name in _OPERATORS:
            setattr(Variable, name, operator(name))
        yield
    finally:
        for name, method in before.items():
            setattr(Variable, name, method)


@contextmanager
def _any_layer() -> Iterator[None]:
    """Let the layers that are called in the block do what Keras allows only in the `call` of another.

    They may give `None` or constants beside symbolic tensors, of which Keras records no call. And they may say the
    shapes of their outputs wrongly: within a `call` Keras asks the code of the layer instead.
    """
    record, symbolic_call = Node.__init__, keras.layers.Layer.symbolic_call
    is_own = "symbolic_call" in vars(keras.layers.Layer)

    def record_tensors(
        self: Any, operation: Any, call_args: Any = None, call_kwargs: Any = None, outputs: Any = None
    ) -> None:
        record(self, operation, call_args, call_kwargs, symbols_of(outputs))

    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            return symbolic_call(self, *args, **kwargs)
        except Exception as error:  # noqa: BLE001  (whatever the user's code raises)
            try:
                return backend.compute_output_spec(self.call, *args, **kwargs)
            except Exception:  # noqa: BLE001
                raise error from None

    try:
        Node.__init__, keras.layers.Layer.symbolic_call = record_tensors, call
        yield
    finally:
        Node.__init__ = record
        if is_own:
            keras.layers.Layer.symbolic_call = symbolic_call
        else:
            del keras.layers.Layer.symbolic_call


def nodes_behind(outputs: list[Any], given: Iterable[Any]) -> tuple[Recorded, ...]:
    """The calls that make symbolic tensors from given ones, each after those that it reads from.

    Raises:
        UnreadableError: If they are made from other symbolic tensors, too.
    """
    known = {id(tensor) for tensor in given}
    order: dict[int, Any] = {}
    stack = [(tensor, False) for tensor in reversed(outputs)]
    while stack:
        tensor, visited = stack.pop()
        if id(tensor) in known:
            continue
        history = getattr(tensor, "_keras_history", None)
        if history is None or history.operation is None:
            raise UnreadableError("its call uses a symbolic tensor that is not one of its inputs")
        node = history.operation._inbound_nodes[history.node_index]  # noqa: SLF001 - as Keras's own walks do
        if visited:
            order.setdefault(id(node), node)
        elif id(node) not in order:
            stack.append((tensor, True))
            stack.extend((t, False) for t in reversed(node.arguments.keras_tensors))
    return recorded(order.values())


@contextmanager
def unchanged(layer: Any) -> Iterator[None]:
    """Take back what symbolic calls in the block record in the layer and its sublayers: `layer.output` is the first."""
    records = [
        (one, name, len(getattr(one, name)))
        for one in layer._flatten_layers(include_self=True, recursive=True)  # noqa: SLF001
        for name in ("_inbound_nodes", "_outbound_nodes")
    ]
    try:
        yield
    finally:
        for one, name, length in records:
            del getattr(one, name)[length:]


def names_of_parts(layer: Any) -> dict[int, str]:
    """The name of each sublayer after the attributes that lead to it, by its `id`.

    Example:
        >>> block = keras.layers.Layer()
        >>> block.convs = [keras.layers.Conv2D(2, 3), keras.layers.Conv2D(2, 3)]
        >>> [names_of_parts(block)[id(conv)] for conv in block.convs]
        ['convs_0', 'convs_1']
    """
    names: dict[int, str] = {id(layer): ""}
    waiting: list[tuple[str, Any]] = [("", layer)]
    while waiting:  # breadth first, so that the shortest way to a sublayer names it
        prefix, held = waiting.pop(0)
        for key, part in _parts(held):
            if id(part) in names:
                continue
            name = f"{prefix}_{key}".strip("_")
            if isinstance(part, keras.layers.Layer):
                names[id(part)] = name
            waiting.append((name, part))
    return names


_KEPT_BY_KERAS = ("_layers", "_metrics", "_tracker", "_inbound_", "_outbound_", "_functional", "_operations", "_self_")
"""How the attributes begin in which Keras lists the sublayers once more."""


def _parts(held: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(held, keras.layers.Layer):
        items = [(key.strip("_"), part) for key, part in vars(held).items() if not key.startswith(_KEPT_BY_KERAS)]
    else:
        items = [(str(key), part) for key, part in (held.items() if isinstance(held, Mapping) else enumerate(held))]
    for key, part in items:
        if isinstance(part, keras.layers.Layer | list | tuple | dict):
            yield key, part
