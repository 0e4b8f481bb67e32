"""The order in which a model's calls are read: depth first from the outputs, arguments from the left, inputs first.

Keras's own order goes by the distance from the output, which a FakeQuantize layer on one branch changes. Here a layer
put on an edge changes nothing for the others, so the second call of a shared layer stays the second (`shared#2`), in
the float model, in the quantized one and in its file. For the same reason the walk is over the flat calls: a model
inside another is flat once it is quantized.
"""

from collections.abc import Iterable, Iterator

from keras_qat.graph.flatten import FlatCall, Value


def calls_in_order(values: Iterable[Value]) -> Iterator[FlatCall]:
    """The calls that make `values` and all that they need, each once, those that make a call's inputs before it.

    Args:
        values: the model's inputs first, which puts them first in the order, then its outputs.

    Example:
        >>> import keras
        >>> from keras_qat.graph.flatten import flatten
        >>> x = keras.Input((4,), name="x")
        >>> shared = keras.layers.Dense(4)
        >>> model = keras.Model(x, keras.layers.Add()([shared(keras.layers.ReLU(name="relu")(x)), shared(x)]))
        >>> scope = flatten(model)
        >>> [type(call.operation).__name__ for call in calls_in_order([scope[id(model.outputs[0])]])]
        ['InputLayer', 'ReLU', 'Dense', 'Dense', 'Add']
    """
    seen: set[FlatCall] = set()
    # A stack of its own: recursion would end at networks a thousand layers deep.
    stack = [(value.call, False) for value in reversed(tuple(values))]
    while stack:
        call, visited = stack.pop()
        if visited:
            yield call
        elif call not in seen:
            seen.add(call)
            stack.append((call, True))
            stack.extend((value.call, False) for value in reversed(call.inputs))
