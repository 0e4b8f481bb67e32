"""Flat calls, and the values that flow between them.

A `Value` is one output of one flat call, since one Keras tensor of a nested model stands for every call of that model.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, eq=False)
class FlatCall:
    """One call of a layer or operation, never of a model.

    Args:
        operation: the layer (or `keras.ops` operation); for an input of the model its InputLayer.
        args: its positional arguments, with a `Value` for each tensor.
        kwargs: its keyword arguments, likewise.
        inputs: the tensors among the arguments, in the order in which Keras lists them.
        output_shapes: the shape of each output in the Keras layout, `None` for the batch axis.
        output_dtypes: the type of each output, such as `"float32"`.
        name: the name that it would get.
        prefix: names of the models around the call, outermost first, each followed by `_`.
        path: names of the models and layers around the call, outermost first.
        unread: why a layer that is not known could not be read either; `None` for any other call.
    """

    operation: Any
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    inputs: tuple["Value", ...]
    output_shapes: tuple[tuple[int | None, ...], ...]
    output_dtypes: tuple[str, ...]
    name: str
    prefix: str = ""
    path: tuple[str, ...] = ()
    unread: str | None = None


@dataclass(frozen=True)
class Value:
    """One output of a call.

    Args:
        call: the call that makes it.
        index: which output of the call, counted from 0.
    """

    call: FlatCall
    index: int


def calls_in_order(values: Iterable[Value], known: Iterable[Value] = ()) -> Iterator[FlatCall]:
    """The calls that make `values` and everything they need, each once, depth first.

    Args:
        values: the model's inputs, which puts them first in the order, then its outputs.
        known: values that are there already, so that the calls that make them are not needed.

    Yields:
        Each call, after the calls that make its inputs.

    Example:
        >>> import keras
        >>> from keras_qat.graph.flatten import flatten
        >>> x = keras.Input((4,), name="x")
        >>> shared = keras.layers.Dense(4)
        >>> model = keras.Model(x, keras.layers.Add()([shared(keras.layers.ReLU(name="relu")(x)), shared(x)]))
        >>> [type(call.operation).__name__ for call in calls_in_order([flatten(model).outputs])]
        ['InputLayer', 'ReLU', 'Dense', 'Dense', 'Add']
    """
    there = set(known)
    seen: set[FlatCall] = set()
    # An explicit stack: recursion would fail on networks a thousand layers deep.
    stack = [(value.call, False) for value in reversed(tuple(values)) if value not in there]
    while stack:
        call, visited = stack.pop()
        if visited:
            yield call
        elif call not in seen:
            seen.add(call)
            stack.append((call, True))
            stack.extend((value.call, False) for value in reversed(call.inputs) if value not in there)
