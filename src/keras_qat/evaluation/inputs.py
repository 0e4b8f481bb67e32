"""What a model file reads: images in its type, in batches of its size."""

from collections.abc import Sequence

import numpy as np

from keras_qat.errors import DataError
from keras_qat.runtimes import TensorSpec


def convert(images: np.ndarray, dtype: np.dtype, name: str = "image") -> np.ndarray:
    """Images in another type, if no image becomes another one by that.

    Args:
        images: of any shape; for an integer `dtype` whole numbers that it holds, such as pixels for uint8.
        dtype: of the model's input.
        name: of the model's input, for the message.

    Returns:
        The same array if it has that type.

    Raises:
        DataError: numbers that the integer type doesn't hold, as of normalized images where pixels are read.

    Example:
        >>> convert(np.array([0.0, 255.0]), np.dtype("uint8"))
        array([  0, 255], dtype=uint8)
    """
    images = np.asarray(images)
    if images.dtype == dtype or not np.issubdtype(dtype, np.integer):
        return np.asarray(images, dtype)
    limits = np.iinfo(dtype)
    # NaN compares false.
    fits = (images >= limits.min) & (images <= limits.max) & (np.trunc(images) == images)
    if not fits.all():
        raise DataError(
            f"The input {name!r} reads whole numbers from {limits.min} to {limits.max} ({dtype}). Received: "
            f"{images.dtype} with {images[~fits].flat[0]:.6g}, from {images.min():.6g} to {images.max():.6g}. Give "
            "pixels that are not normalized (`Preprocessing.raw()`): the file normalizes them itself."
        )
    return images.astype(dtype)


def fixed_batch(specs: Sequence[TensorSpec]) -> int | None:
    """The batch that a model was made for; `None` if it takes any.

    Args:
        specs: its inputs; the batch is the first dimension.

    Returns:
        The first dimension of the first input that has one, unless that of any input is dynamic; 1 if none has one.

    Example:
        >>> float32 = np.dtype("float32")
        >>> fixed_batch([TensorSpec("image", (4, 8, 8, 3), float32)])
        4
        >>> fixed_batch([TensorSpec("image", (None, 8, 8, 3), float32), TensorSpec("scale", (1,), float32)])
    """
    firsts = [spec.shape[0] for spec in specs if spec.shape]
    return None if None in firsts else next(iter(firsts), 1)
