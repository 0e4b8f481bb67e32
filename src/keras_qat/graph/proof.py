"""The proof that what was read of a layer computes what the layer computes, on random numbers.

Code can do one thing with symbolic tensors and another with numbers, and nothing behind could tell: file and simulation
are both made from what was read.
"""

from collections.abc import Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import keras
import numpy as np
from keras.src import backend

from keras_qat.graph.calls import Value, calls_in_order
from keras_qat.graph.capture import UnreadableError, call_at_inference
from keras_qat.text import one_line

PROOF_IMAGES = (2, 3)
"""The numbers of images that a reading is tried with: the first; both if the code computes with that number."""

_OPEN_SIZE = 16
"""What stands for the other sizes that a shape leaves open."""

_TOLERANCE = {"float16": 0.02, "bfloat16": 0.1}
"""The largest difference, as a share of the largest number; `_TOLERANCE_OF_FLOATS` for other types."""

_TOLERANCE_OF_FLOATS = 1e-3

_proven: WeakKeyDictionary[Any, set[tuple[Any, ...]]] = WeakKeyDictionary()
"""The input shapes for which each layer was tried: a model is read many times."""


def require_the_same(
    layer: Any,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    first_sizes: Sequence[int],
    inputs: Sequence[Value],
    outputs: Sequence[Any],
) -> None:
    """Try the calls that were read of a layer, and the layer, on the same random numbers.

    Args:
        layer: the layer.
        args: the positional arguments of its call, with symbolic tensors.
        kwargs: the keyword arguments, likewise.
        first_sizes: the first sizes of these tensors to try, in order.
        inputs: the values of these tensors.
        outputs: the values of its outputs, in order, and constants; without those that are `None`.

    Raises:
        UnreadableError: If the results differ, or the layer's `call` can't be compiled.
    """
    symbols = [x for x in keras.tree.flatten((args, dict(kwargs))) if isinstance(x, keras.KerasTensor)]
    shapes = tuple((symbol.shape, size, symbol.dtype) for symbol, size in zip(symbols, first_sizes, strict=True))
    if shapes in _proven.setdefault(layer, set()):
        return
    _require_compilable(layer, args, kwargs)
    numbers = {id(symbol): _random(symbol, size) for symbol, size in zip(symbols, first_sizes, strict=True)}
    given_args, given_kwargs = keras.tree.map_structure(lambda x: numbers.get(id(x), x), (args, dict(kwargs)))
    try:
        made = keras.tree.flatten(call_at_inference(layer, layer.__call__, given_args, given_kwargs))
        expected = [x for x in made if x is not None]
    except Exception as error:  # whatever the user's code raises
        if any(None in symbol.shape[1:] for symbol in symbols):
            return  # the size that was tried need not be one that the layer takes
        raise UnreadableError(f"its call fails on numbers ({type(error).__name__}: {one_line(error)})") from error
    try:
        found = _compute(outputs, dict(zip(inputs, (numbers[id(symbol)] for symbol in symbols), strict=True)))
    except Exception as error:  # an operation that takes symbolic tensors of an open size, and no others
        raise UnreadableError(
            f"what its call does fails on numbers ({type(error).__name__}: {one_line(error)})"
        ) from error
    if len(expected) != len(found):
        raise UnreadableError("its call gives `None` or not by conditions on what it is called with")
    for one, other in zip(expected, found, strict=True):
        _require_close(*(np.asarray(keras.ops.convert_to_numpy(x)) for x in (one, other)))
    _proven[layer].add(shapes)


def _require_compilable(layer: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    def compiled(*args: Any, **kwargs: Any) -> Any:
        return backend.compute_output_spec(layer.call, *args, **kwargs)

    try:
        call_at_inference(layer, compiled, args, kwargs)
    except Exception as error:  # whatever the user's code raises
        raise UnreadableError(f"its call can't be compiled ({type(error).__name__}: {one_line(error)})") from error


def _random(symbol: Any, first_size: int) -> Any:
    random = np.random.default_rng(0)
    sizes = (first_size, *symbol.shape[1:]) if symbol.shape else ()
    shape = [_OPEN_SIZE if size is None else size for size in sizes]
    is_float = keras.backend.is_float_dtype(symbol.dtype)
    numbers = random.normal(size=shape) if is_float else random.integers(0, 2, shape)
    return keras.ops.cast(keras.ops.convert_to_tensor(numbers), symbol.dtype)


def _compute(outputs: Sequence[Any], known: dict[Value, Any]) -> list[Any]:
    """The numbers of `outputs` from those of the values in `known`; a constant is its own."""
    numbers = dict(known)
    for call in calls_in_order((value for value in outputs if isinstance(value, Value)), known):
        args, kwargs = keras.tree.map_structure(
            lambda x: numbers[x] if isinstance(x, Value) else x, (call.args, dict(call.kwargs))
        )
        made = [x for x in keras.tree.flatten(call.operation(*args, **kwargs)) if x is not None]
        numbers.update({Value(call, index): x for index, x in enumerate(made)})
    return [numbers[value] if isinstance(value, Value) else value for value in outputs]


def _require_close(expected: np.ndarray, found: np.ndarray) -> None:
    share = _TOLERANCE.get(str(expected.dtype), _TOLERANCE_OF_FLOATS)
    a, b = expected.astype(np.float64), found.astype(np.float64)
    finite = np.abs(a[np.isfinite(a)])
    if a.shape != b.shape or not np.allclose(a, b, rtol=0, atol=share * finite.max(initial=0), equal_nan=True):
        raise UnreadableError(
            "its call computes something else with numbers than with symbolic tensors, or something random at inference"
        )
