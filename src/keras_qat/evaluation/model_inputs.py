"""What a model file reads: images in its type, in batches of its size, or random numbers where no images are needed."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from keras_qat.errors import DataError, UserError
from keras_qat.runtimes import Runtime, TensorSpec

_DRAWS: Mapping[str, Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]] = {
    "f": lambda random, shape: random.standard_normal(shape, np.float32),
    "u": lambda random, shape: random.integers(0, 256, shape, np.uint8),
    "i": lambda random, shape: random.integers(0, 128, shape, np.uint8),
    "b": lambda random, shape: random.integers(0, 2, shape, np.uint8),
}
"""{NumPy's kind of dtype: random numbers that every dtype of that kind can hold}."""


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


def as_input(runtime: Runtime, images: np.ndarray) -> np.ndarray:
    """Return the images in the type of the model's first input, such as float16, or uint8 for whole pixels.

    Raises:
        DataError: If the model reads integers, and the images are not whole numbers that these can hold.
    """
    return convert(images, runtime.inputs[0].dtype, runtime.inputs[0].name)


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
        UserError: If a dimension other than the first is dynamic, or if a dtype is neither boolean, integer nor float.

    Example:
        >>> (image,) = random_inputs([TensorSpec("image", (None, 8, 8, 3), np.dtype("uint8"))], 2)
        >>> image.shape, image.dtype
        ((2, 8, 8, 3), dtype('uint8'))
    """
    random = np.random.default_rng(seed)
    return tuple(_draw(random, spec, batch, model) for spec in specs)


def _draw(random: np.random.Generator, spec: TensorSpec, batch: int, model: str) -> np.ndarray:
    if None in spec.shape[1:]:
        raise UserError(
            "Only the batch, the first dimension, may be dynamic: random input needs all other sizes. "
            f"Received: {spec} in {model}. Export the model with a fixed input size."
        )
    if spec.dtype.kind not in _DRAWS:
        raise UserError(
            "There are no random numbers of that type. "
            f"Received: {spec} in {model}. Export a model that reads floats, integers or booleans."
        )
    shape = tuple(batch if size is None else size for size in spec.shape)
    return _DRAWS[spec.dtype.kind](random, shape).astype(spec.dtype)
