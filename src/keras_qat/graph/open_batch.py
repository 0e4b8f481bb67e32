"""Code of a layer that computes with the number of images, as in `ops.shape(x)[0] * windows`.

That number is open, so such code can't run on the symbolic tensors of a model. It is run for two numbers of images
instead, and what differs between the two recordings is written anew for any number: a reshape leaves that size open,
and a constant with equal rows for all images, such as a class token, becomes a lookup of its row for each image. Any
other difference can't be read. The proof (`proof.py`) then tries other numbers of images.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras.src.ops import numpy

from keras_qat.graph.calls import FlatCall, Value, calls_in_order
from keras_qat.graph.capture import Captured, Recorded, UnreadableError, capture, nodes_behind, symbols_of

IMAGES = (5, 7)
"""The numbers of images for which the code is run."""


def capture_for_any_batch(
    layer: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], first_sizes: Sequence[Sequence[int]]
) -> Captured:
    """Run the `call` of a layer on symbolic tensors with a fixed number of images, and take from it what holds for any.

    Args:
        layer: the layer, built. It is not changed.
        args: the positional arguments of its call, with symbolic tensors whose first size may be open.
        kwargs: the keyword arguments, likewise.
        first_sizes: for each number in `IMAGES` the first size of each symbolic tensor.

    Returns:
        The calls, on symbolic tensors for the first number of images. No setting or constant depends on that number.

    Raises:
        UnreadableError: If the code can't run, or the two recordings differ in another way.

    Example:
        >>> class Flat(keras.layers.Layer):
        ...     def call(self, x):
        ...         return keras.ops.reshape(x, (keras.ops.shape(x)[0] * 4, 2))
        >>> captured = capture_for_any_batch(Flat(), (keras.KerasTensor((None, 8)),), {}, [[5], [7]])
        >>> captured.nodes[0].operation.newshape
        (-1, 2)
    """
    one, other = (capture(layer, *_with_first_sizes(args, kwargs, sizes)) for sizes in first_sizes)
    return _Comparison(one, other).captured()


def _with_first_sizes(
    args: tuple[Any, ...], kwargs: Mapping[str, Any], sizes: Sequence[int]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    remaining = iter(sizes)

    def sized(x: Any) -> Any:
        return _sized(x.shape, x.dtype, next(remaining)) if isinstance(x, keras.KerasTensor) else x

    filled: tuple[tuple[Any, ...], dict[str, Any]] = keras.tree.map_structure(sized, (args, dict(kwargs)))
    return filled


def _sized(shape: Sequence[int | None], dtype: str, size: int) -> Any:
    """A new symbolic tensor with that first size."""
    return keras.KerasTensor((size, *shape[1:]) if shape else (), dtype)


class _Comparison:
    """Two recordings of one `call`, for two numbers of images."""

    def __init__(self, one: Captured, other: Captured) -> None:
        self._one, self._other = one, other
        self._twins = {id(a): id(b) for a, b in zip(one.inputs, other.inputs, strict=True)}
        self._added: list[Recorded] = []

    def captured(self) -> Captured:
        """The first recording, without what depends on its number of images."""
        nodes: list[Recorded] = []
        if [type(node.operation) for node in self._one.nodes] != [type(node.operation) for node in self._other.nodes]:
            _refuse("it calls other layers or operations for another number")
        for a, b in zip(self._one.nodes, self._other.nodes, strict=True):
            merged = self._merged(a, b)
            nodes += [*self._added, merged]
            self._added.clear()
        outputs = self._leaves(self._one.outputs, self._other.outputs)
        return Captured(self._one.inputs, (*nodes, *self._added), outputs)

    def _merged(self, a: Recorded, b: Recorded) -> Recorded:
        args, kwargs = self._leaves((a.args, dict(a.kwargs)), (b.args, dict(b.kwargs)))
        if [len(x.shape) for x in a.outputs] != [len(x.shape) for x in b.outputs]:
            _refuse("a call makes tensors of other ranks for another number")
        self._twins.update(zip(map(id, a.outputs), map(id, b.outputs), strict=True))
        return Recorded(_operation(a, b), args, kwargs, a.outputs)

    def _leaves(self, one: Any, other: Any) -> Any:
        try:
            return keras.tree.map_structure(self._leaf, one, other)
        except (TypeError, ValueError):
            return _refuse("the arguments or results of a call have another structure for another number")

    def _leaf(self, a: Any, b: Any) -> Any:
        if isinstance(a, keras.KerasTensor):
            same = self._twins.get(id(a)) == id(b)
        elif _is_array(a) and _is_array(b):
            return a if a is b else self._array(a, b)
        else:
            same = _same(a, b)
        return a if same else _refuse(f"it passes {a!r} for one number and {b!r} for another")

    def _array(self, a: Any, b: Any) -> Any:
        """A constant that is the same for any number of images, or its row for each image."""
        x, y = (np.asarray(keras.ops.convert_to_numpy(array)) for array in (a, b))
        if x.shape == y.shape and np.array_equal(x, y):
            return a
        axes = [axis for axis, sizes in enumerate(zip(x.shape, y.shape, strict=False)) if len(set(sizes)) > 1]
        if x.ndim != y.ndim or len(axes) != 1:
            return _refuse("it makes numbers that depend on the number of images")
        row = np.take(x, [0], axes[0])
        if not (np.array_equal(x, np.broadcast_to(row, x.shape)) and np.array_equal(y, np.broadcast_to(row, y.shape))):
            return _refuse("it makes numbers that differ from image to image")
        made = keras.ops.take(row, self._zeros(x.shape[axes[0]], y.shape[axes[0]]), axis=axes[0])
        self._added.extend(nodes_behind([made], self._one.inputs))
        return made

    def _zeros(self, size: int, other_size: int) -> Any:
        """A symbolic tensor of zeros, int32, as long as an axis that has these two sizes in the two recordings."""
        for x, twin in zip(self._one.inputs, self._other.inputs, strict=True):
            rows = x.shape[0] if x.shape else 0
            times = size // rows if rows else 0
            if times and (times * rows, times * twin.shape[0]) == (size, other_size) and rows != twin.shape[0]:
                first = x[(slice(None), *[0] * (len(x.shape) - 1))]
                zeros = keras.ops.zeros_like(keras.ops.cast(first, "int32"))
                if times == 1:
                    return zeros
                return keras.ops.reshape(keras.ops.tile(keras.ops.expand_dims(zeros, 1), (1, times)), (-1,))
        return _refuse("it makes a constant whose size is no multiple of the number of images")


def _refuse(why: str) -> Any:
    raise UnreadableError(f"its call computes with the number of images in a way that can't be read: {why}")


def _is_array(x: Any) -> bool:
    return isinstance(x, np.ndarray | keras.Variable) or keras.ops.is_tensor(x)


def _same(a: Any, b: Any) -> bool:
    return a is b or bool(np.array_equal(a, b) if _is_array(a) or _is_array(b) else a == b)


def _operation(a: Recorded, b: Recorded) -> Any:
    """The operation of two calls, for any number of images."""
    if isinstance(a.operation, keras.layers.Layer):
        return a.operation if a.operation is b.operation else _refuse("it calls another layer for another number")
    one, other = (_settings(node.operation) for node in (a, b))
    if len(one) == len(other) and all(map(_same, one, other)):
        return a.operation
    rewrite = _REWRITES.get(type(a.operation))
    written = None if rewrite is None else rewrite(a, b)
    return written or _refuse(f"a {type(a.operation).__name__} has settings that depend on it")


def _settings(operation: Any) -> list[Any]:
    """What an operation was made with, without its name and what Keras notes in it."""
    public = {key: value for key, value in vars(operation).items() if not key.startswith("_") and key != "name"}
    return list(keras.tree.flatten(public))


def _reshape(a: Recorded, b: Recorded) -> Any:
    """A reshape that leaves the size open that differs."""
    sizes = tuple(zip(a.outputs[0].shape, b.outputs[0].shape, strict=True))
    wanted = tuple(-1 if x != y else x for x, y in sizes)
    return numpy.Reshape(wanted) if wanted.count(-1) == 1 and None not in wanted else None


def _broadcast(a: Recorded, b: Recorded) -> Any:
    """A broadcast along other axes than that of the images: repeats of axes of size 1."""
    one, other = (_repeats(node.tensors[0].shape, node.outputs[0].shape) for node in (a, b))
    return numpy.Tile(one) if one is not None and one == other else None


def _repeats(given: Sequence[int | None], wanted: Sequence[int | None]) -> tuple[int, ...] | None:
    spread = [1] * (len(wanted) - len(given)) + list(given)
    pairs = [(x, y) for x, y in zip(spread, wanted, strict=True) if x is not None and y is not None]
    return tuple(y // x for x, y in pairs) if len(pairs) == len(wanted) else None


_REWRITES: Mapping[type, Callable[[Recorded, Recorded], Any]] = {
    numpy.Reshape: _reshape,
    numpy.BroadcastTo: _broadcast,
}
"""(a call, the same for another number of images) → the operation for any number; `None` if there is none."""


def first_sizes(values: Sequence[Value], images: int, known: dict[Value, int]) -> list[int]:
    """The first sizes of values for a number of images: their windows or frames may be a multiple of it.

    Args:
        values: the values.
        images: the number of images that the model reads.
        known: the sizes that are known for this number of images; those found are added.

    Example:
        >>> from keras_qat.graph.flatten import flatten
        >>> image = keras.Input((4, 4, 3))
        >>> windows = keras.ops.reshape(image, (-1, 2, 2, 3))
        >>> first_sizes([flatten(keras.Model(image, windows)).outputs], 5, {})
        [20]
    """
    for call in calls_in_order(values, known):
        known.update({Value(call, i): size for i, size in enumerate(_sizes_of_outputs(call, images, known))})
    return [known[value] for value in values]


def _sizes_of_outputs(call: FlatCall, images: int, known: Mapping[Value, int]) -> Iterator[int]:
    made = _outputs_for(call, known) if any(shape[:1] == (None,) for shape in call.output_shapes) else []
    batch = next((known[value] for value in call.inputs if _shape(value)[:1] == (None,)), images)
    for index, shape in enumerate(call.output_shapes):
        size = shape[0] if shape else 0
        if size is None:
            size = made[index].shape[0] if index < len(made) and made[index].shape else None
        yield batch if size is None else size


def _outputs_for(call: FlatCall, known: Mapping[Value, int]) -> list[Any]:
    """The outputs of an operation as symbolic tensors of a fixed first size; none of a layer, which keeps the batch."""
    if isinstance(call.operation, keras.layers.Layer):
        return []

    def sized(x: Any) -> Any:
        return _sized(_shape(x), x.call.output_dtypes[x.index], known[x]) if isinstance(x, Value) else x

    args, kwargs = keras.tree.map_structure(sized, (call.args, dict(call.kwargs)))
    try:
        return symbols_of(call.operation.compute_output_spec(*args, **kwargs))
    except Exception:  # noqa: BLE001  (whatever Keras raises for these sizes; the proof tries them again)
        return []


def _shape(value: Value) -> tuple[int | None, ...]:
    return value.call.output_shapes[value.index]
