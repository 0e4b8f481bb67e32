"""One batch in any structure that Keras knows → checked NumPy arrays, in the order of a model's inputs.

The structure of a batch is Keras's (`keras.utils.unpack_x_y_sample_weight`): a tuple is (x,), (x, y) or
(x, y, sample_weight), and x is an array, a list of arrays, or a dictionary of arrays by input. A list is read as such a
tuple too, since DataLoaders collate samples into lists; but for a model with several inputs a list of arrays is x, as
it is for `model.predict_on_batch`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_qat.errors import DataError
from keras_qat.graph import input_names

_REGISTERED_TYPE = 2
"""`dtype.isbuiltin` of types that other packages register with NumPy, such as bfloat16."""


def arrays_of(batch: Any, model: Any) -> list[np.ndarray]:
    """Return the arrays of a batch in the order of the model's inputs, without labels and weights.

    Args:
        batch: Arrays or tensors of shape (batch, …), of any numeric type, in one of the structures above.
        model: The model that will read them.

    Returns:
        One array for each of `model.inputs`, of the type it came in; the model casts.

    Raises:
        DataError: If the arrays do not fit the model, are not numeric, or hold a number that is not finite.

    Example:
        >>> import keras
        >>> left, right = keras.Input((2,), name="left"), keras.Input((3,), name="right")
        >>> model = keras.Model([left, right], keras.layers.Concatenate()([left, right]))
        >>> [x.shape for x in arrays_of(({"right": np.zeros((4, 3)), "left": np.zeros((4, 2))}, "labels"), model)]
        [(4, 2), (4, 3)]
    """
    x, _, _ = split_batch(batch, len(model.inputs))
    arrays = [to_numpy(array) for array in in_order(x, model)]
    for array in arrays:
        _check_type(array)
    check_shapes([array.shape for array in arrays], model)
    for array, name in zip(arrays, input_names(model), strict=True):
        _check_finite(array, name)
    return arrays


def split_batch(batch: Any, inputs: int) -> tuple[Any, Any, Any]:
    """Return (x, y, sample weights) of a batch for a model with that many inputs, `None` for what it lacks.

    Raises:
        DataError: If the batch is an empty tuple or list.

    Example:
        >>> split_batch(("images", "labels"), 1), split_batch(["left", "right"], 2)
        (('images', 'labels', None), (['left', 'right'], None, None))
    """
    if not isinstance(batch, tuple | list):
        return batch, None, None
    if not batch:
        raise DataError(f"A batch is empty. Received: {batch!r}. Give arrays of images, or (images, labels).")
    if isinstance(batch, list) and inputs > 1 and not isinstance(batch[0], tuple | list | Mapping):
        return batch, None, None
    parts = [*batch, None, None]
    return parts[0], parts[1], parts[2]


def in_order(x: Any, model: Any) -> list[Any]:
    """Return the arrays of x in the order of the model's inputs: a list, or a dictionary by the inputs' names.

    Raises:
        DataError: If an input has no array in a dictionary.
    """
    if isinstance(x, Mapping):
        return inputs_by_name(x, model)
    return list(x) if isinstance(x, tuple | list) else [x]


_CONVERTERS: tuple[tuple[Callable[[Any], bool], Callable[[Any], Any]], ...] = (
    (keras.ops.is_tensor, keras.ops.convert_to_numpy),
    # A tensor of a framework that is not Keras's backend. It may be on a device or require gradients.
    (lambda x: hasattr(x, "detach") and hasattr(x, "cpu"), lambda x: np.asarray(x.detach().cpu())),
    (lambda _: True, np.asarray),
)
"""(whether x is this kind of array, its conversion to NumPy); the first match applies."""


def to_numpy(x: Any) -> np.ndarray:
    """Return an array, a tensor of any framework or nested lists of numbers as an array of NumPy.

    Raises:
        DataError: If NumPy can't read it as an array.
    """
    convert = next(convert for recognizes, convert in _CONVERTERS if recognizes(x))
    try:
        return np.asarray(convert(x))
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(
            f"The data can't be read as an array: {error}. Received: {type(x).__name__}. "
            "Give arrays of numbers, all images of a batch of one shape."
        ) from error


def _check_type(array: np.ndarray) -> None:
    if array.dtype.kind not in "biuf" and array.dtype.isbuiltin != _REGISTERED_TYPE:
        raise DataError(
            f"The images must be numbers. Received: an array of type {array.dtype}, shape {array.shape}. "
            "Decode the images to arrays, all of one shape, with the preprocessing of training."
        )


def _check_finite(array: np.ndarray, name: str) -> None:
    if array.dtype.kind in "biu" or np.isfinite(array).all():
        return
    bad = float(array[~np.isfinite(array)][0])
    raise DataError(
        f"The input {name!r} is not finite on these images. Received: a batch with a number {bad}. "
        "Check the preprocessing of the images."
    )


def inputs_by_name(arrays: Mapping[str, Any], model: Any) -> list[Any]:
    """Return the arrays of a dictionary in the order of the model's inputs. Other keys, such as labels, are ignored.

    Raises:
        DataError: If an input has no array.
    """
    names = input_names(model)
    missing = [name for name in names if name not in arrays]
    if missing:
        raise DataError(
            f"The model {model.name!r} has an input {missing[0]!r}, for which there is no array. "
            f"Received: a dictionary of {', '.join(map(repr, arrays)) or 'nothing'}. Name the arrays "
            f"{', '.join(map(repr, names))}."
        )
    return [arrays[name] for name in names]


def check_shapes(received: Sequence[tuple[int, ...]], model: Any) -> None:
    """Refuse arrays whose shapes do not fit the model's inputs.

    Args:
        received: The shapes of the arrays, the batch axis first.
        model: The model that will read them.

    Raises:
        DataError: If the number of arrays or a shape is wrong, or if one array has more images than another.
    """
    expected = [tuple(i.shape) for i in model.inputs]
    if len(expected) != len(received) or not all(map(_fits, expected, received)):
        single = len(expected) == len(received) == 1
        raise DataError(
            f"The images don't fit the model {model.name!r}. Received: a batch of shape "
            f"{received[0] if single else list(received)}, where the model takes "
            f"{expected[0] if single else expected}. {_advice(expected, received)}"
        )
    if len({shape[0] for shape in received}) > 1:
        raise DataError(
            f"The inputs of the model {model.name!r} need the same number of images. Received: a batch of shapes "
            f"{list(received)}. Give as many for each input."
        )


def _fits(expected: tuple[int | None, ...], received: tuple[int, ...]) -> bool:
    same_rank = len(expected) == len(received)
    return same_rank and all(e in (None, r) for e, r in zip(expected, received, strict=True))


def _advice(expected: Sequence[tuple[int | None, ...]], received: Sequence[tuple[int, ...]]) -> str:
    if len(expected) != len(received):
        return (
            "Give one array for each input, as a list: [left, right], or ([left, right], labels); a tuple is "
            "(images, labels)."
            if len(expected) > 1
            else "Give one array of images."
        )
    if all(map(_fits, (shape[1:] for shape in expected), received)):
        return "This is one image without a batch axis: add it with `image[np.newaxis]`, or `.batch(32)` a dataset."
    if all(map(_fits, ((None, *shape[1:]) for shape in expected), received)):
        return f"The model takes batches of exactly {expected[0][0]} images: give such, or build it without that size."
    return "Resize the images as for training."
