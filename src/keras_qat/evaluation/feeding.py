"""What a model is fed: arrays in its own types, in batches of its own size, or random numbers."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from keras_qat.errors import DataError, UserError
from keras_qat.machine import memory
from keras_qat.runtimes import Runtime, TensorSpec
from keras_qat.text import size_text

_DRAWS: Mapping[str, Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]] = {
    "f": lambda random, shape: random.standard_normal(shape, np.float32),
    "u": lambda random, shape: random.integers(0, 256, shape, np.uint8),
    "i": lambda random, shape: random.integers(0, 128, shape, np.uint8),
    "b": lambda random, shape: random.integers(0, 2, shape, np.uint8),
}
"""{NumPy's kind of dtype: random numbers that every dtype of that kind can hold}."""


_WIDEST = 8
"""Bytes of the widest number that a model reads, for estimates of memory."""


def convert(images: np.ndarray, dtype: np.dtype, name: str = "image") -> np.ndarray:
    """Convert images to another type if that changes no image.

    Args:
        images: Images of any shape. An integer `dtype` needs whole numbers in its range, such as pixels for uint8.
        dtype: The type of the model's input.
        name: The name of the model's input, for the error message.

    Returns:
        The images in that type; the same array if it has that type already.

    Raises:
        DataError: If the integer type cannot hold a number, as with normalized images for an input of pixels.

    Example:
        >>> convert(np.array([0.0, 255.0]), np.dtype("uint8"))
        array([  0, 255], dtype=uint8)
    """
    images = np.asarray(images)
    if images.dtype == dtype or not np.issubdtype(dtype, np.integer):
        return np.asarray(images, dtype)
    limits = np.iinfo(dtype)
    # Comparisons with NaN are false.
    fits = (images >= limits.min) & (images <= limits.max) & (np.trunc(images) == images)
    if not fits.all():
        raise DataError(
            f"The input {name!r} reads whole numbers from {limits.min} to {limits.max} ({dtype}). Received: "
            f"{images.dtype} with {images[~fits].flat[0]:.6g}, from {images.min():.6g} to {images.max():.6g}. Give "
            "pixels that are not normalized (`Preprocessing.raw()`): the file normalizes them itself."
        )
    return images.astype(dtype)


def arrays_of_inputs(x: Any) -> tuple[np.ndarray, ...]:
    """Return the arrays of one batch of a data set: one for each input of the model.

    Args:
        x: One array, or a tuple or list of arrays in the order of the model's inputs.

    Example:
        >>> len(arrays_of_inputs(np.zeros((4, 2)))), len(arrays_of_inputs((np.zeros((4, 2)), np.zeros(4))))
        (1, 2)
    """
    return tuple(map(np.asarray, x)) if isinstance(x, tuple | list) else (np.asarray(x),)


def as_inputs(runtime: Runtime, x: Any) -> tuple[np.ndarray, ...]:
    """Return the arrays in the types of the model's inputs, such as float16, or uint8 for whole pixels.

    Raises:
        DataError: If there are more or fewer arrays than inputs, or the model reads integers that can't hold a number.
    """
    arrays = arrays_of_inputs(x)
    if len(arrays) != len(runtime.inputs):
        raise DataError(
            f"The model reads {len(runtime.inputs)} inputs ({'; '.join(map(str, runtime.inputs))}). "
            f"Received: {len(arrays)} arrays. Give one array for each input, in this order."
        )
    return tuple(convert(array, spec.dtype, spec.name) for array, spec in zip(arrays, runtime.inputs, strict=True))


def run_batch(runtime: Runtime, x: Any) -> tuple[np.ndarray, ...]:
    """Run a model on one batch, whatever types it reads and whatever batch size it was made for.

    Args:
        runtime: The model in an engine.
        x: One array of shape (batch, …), or a tuple of arrays for a model with several inputs. A model with a fixed
            batch is given batches of that size. The last one is filled up with its first rows, whose outputs are
            dropped.

    Returns:
        One array for each output, shape (batch, …).

    Raises:
        DataError: If the arrays don't fit the model.
    """
    inputs = as_inputs(runtime, x)
    images = len(inputs[0])
    size = fixed_batch(runtime.inputs) or images
    if size == images:
        return runtime.run(*inputs)
    parts = [runtime.run(*_rows(inputs, start, size)) for start in range(0, images, size)]
    return tuple(np.concatenate(outputs)[:images] for outputs in zip(*parts, strict=True))


def _rows(arrays: tuple[np.ndarray, ...], start: int, size: int) -> tuple[np.ndarray, ...]:
    """Return `size` rows of each array from `start` on; behind the last row come the first ones again."""
    return tuple(np.take(array, range(start, start + size), axis=0, mode="wrap") for array in arrays)


def of_size(batches: Iterable[Any], size: int | None) -> Iterator[Any]:
    """Yield batches of exactly the size that a model was made for, the last of each filled up with its first rows.

    Args:
        batches: What the model reads, without labels: arrays of shape (batch, …), or tuples of them.
        size: The fixed batch of the model; `None` leaves the batches as they are.

    Example:
        >>> [x.tolist() for x in of_size([np.arange(5)], 3)]
        [[0, 1, 2], [3, 4, 0]]
    """
    for x in batches:
        arrays = arrays_of_inputs(x)
        if size is None or len(arrays[0]) == size:
            yield x
            continue
        for start in range(0, len(arrays[0]), size):
            filled = _rows(arrays, start, size)
            yield filled if isinstance(x, tuple | list) else filled[0]


def fixed_batch(specs: Sequence[TensorSpec]) -> int | None:
    """Return the batch size that a model was made for; `None` if it accepts any.

    Args:
        specs: The model's inputs. The batch is the first dimension.

    Returns:
        The first dimension of the first input that has dimensions, or 1 if no input has any. `None` if the first
        dimension of any input is dynamic.

    Example:
        >>> float32 = np.dtype("float32")
        >>> fixed_batch([TensorSpec("image", (4, 8, 8, 3), float32)])
        4
        >>> fixed_batch([TensorSpec("image", (None, 8, 8, 3), float32), TensorSpec("scale", (1,), float32)])
    """
    firsts = [spec.shape[0] for spec in specs if spec.shape]
    return None if None in firsts else next(iter(firsts), 1)


def random_inputs(
    specs: Sequence[TensorSpec], batch: int, *, seed: int = 0, model: str = "model"
) -> tuple[np.ndarray, ...]:
    """Draw an array for each input: normal floats, unsigned integers from 0 to 255, signed integers from 0 to 127.

    Args:
        specs: The model's inputs. A dynamic first dimension is the batch.
        batch: The size of the batch.
        seed: The seed of the random numbers.
        model: The model's name, for the error message.

    Returns:
        One array for each input, of its dtype.

    Raises:
        UserError: If a dimension other than the first is dynamic, a size is below 1, a dtype is neither boolean,
            integer nor float, or the numbers would not fit in memory.

    Example:
        >>> (image,) = random_inputs([TensorSpec("image", (None, 8, 8, 3), np.dtype("uint8"))], 2)
        >>> image.shape, image.dtype
        ((2, 8, 8, 3), dtype('uint8'))
    """
    shapes = [tuple(batch if size is None else size for size in spec.shape) for spec in specs]
    require_memory(sum(2 * _WIDEST * math.prod(shape) for shape in shapes), f"{model} at batch size {batch}")
    random = np.random.default_rng(seed)
    return tuple(_draw(random, spec, batch, model) for spec in specs)


def require_memory(needed: int, what: str) -> None:
    """Refuse arrays that would not fit in memory, before the system ends the process for them.

    Args:
        needed: number of bytes.
        what: what they are for, for the error message.

    Raises:
        UserError: If fewer bytes are available.

    Example:
        >>> require_memory(2**60, "int8.onnx at batch size 1048576")
        Traceback (most recent call last):
        keras_qat.errors.UserError: One batch doesn't fit in memory: it takes 1152921504.6 GB. Received: int8.onnx ...
    """
    available = memory().available
    if needed > available:
        raise UserError(
            f"One batch doesn't fit in memory: it takes {size_text(needed)}. Received: {what}, with "
            f"{size_text(available)} available. Give a smaller batch size."
        )


def _draw(random: np.random.Generator, spec: TensorSpec, batch: int, model: str) -> np.ndarray:
    if None in spec.shape[1:]:
        raise UserError(
            "Only the batch, the first dimension, may be dynamic: random input needs all other sizes. "
            f"Received: {spec} in {model}. Export the model with a fixed input size."
        )
    if any(size is not None and size < 1 for size in spec.shape):
        raise UserError(
            f"A model that reads nothing can't be run. Received: {spec} in {model}. Export the model with sizes of at "
            "least 1."
        )
    if spec.dtype.kind not in _DRAWS:
        raise UserError(
            "There are no random numbers of that type. "
            f"Received: {spec} in {model}. Export a model that reads floats, integers or booleans."
        )
    shape = tuple(batch if size is None else size for size in spec.shape)
    return _DRAWS[spec.dtype.kind](random, shape).astype(spec.dtype)
