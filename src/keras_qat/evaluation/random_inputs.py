"""Random numbers that a model can read: what latency is measured on, where the answer doesn't matter."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from keras_qat.errors import UserError
from keras_qat.runtimes import TensorSpec

_Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]

_DRAWS: Mapping[str, _Draw] = {
    "f": lambda random, shape: random.standard_normal(shape, np.float32),
    "u": lambda random, shape: random.integers(0, 256, shape, np.uint8),
    "i": lambda random, shape: random.integers(0, 128, shape, np.uint8),
    "b": lambda random, shape: random.integers(0, 2, shape, np.uint8),
}
"""{NumPy's kind of dtype: numbers that every dtype of that kind holds}."""


def random_inputs(
    specs: Sequence[TensorSpec], batch: int, *, seed: int = 0, model: str = "model"
) -> tuple[np.ndarray, ...]:
    """An array for each input: normal floats, unsigned integers from 0 to 255, signed ones from 0 to 127.

    Args:
        specs: the inputs; a dynamic first dimension is the batch.
        batch: its size.
        seed: the same seed gives the same numbers.
        model: what an error calls the model.

    Returns:
        One array for each input, of its dtype.

    Raises:
        UserError: another dimension is dynamic, too, or the dtype is neither boolean, integer nor float.

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
