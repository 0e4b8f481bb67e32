"""What every engine offers: named inputs and outputs, run, say what and where it is, close."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from types import TracebackType

import numpy as np
from typing_extensions import Self

from keras_qat.errors import DataError, UserError


@dataclass(frozen=True)
class TensorSpec:
    """What an engine reads or writes under one name.

    Args:
        name: of the input or output.
        shape: `None` for a dynamic dimension, such as the batch.
        dtype: NumPy's.

    Example:
        >>> str(TensorSpec("image", (None, 224, 224, 3), np.dtype("float32")))
        'image: float32 (?, 224, 224, 3)'
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: np.dtype

    def __str__(self) -> str:
        sizes = ", ".join("?" if size is None else str(size) for size in self.shape)
        return f"{self.name}: {self.dtype} ({sizes}{',' if len(self.shape) == 1 else ''})"

    def fits(self, array: np.ndarray) -> bool:
        """Whether the array is of this type, with as many dimensions, and equal in all that are fixed."""
        sizes = zip(self.shape, array.shape, strict=False)
        return (
            array.dtype == self.dtype
            and array.ndim == len(self.shape)
            and all(fixed is None or fixed == size for fixed, size in sizes)
        )


class Runtime(ABC):
    """A loaded model that turns arrays into arrays; a context manager that closes itself.

    Args:
        engine: the engine and its version, such as `ONNX Runtime 1.32.0`.
        device: where it runs, such as `CPU, 2 threads`.
        inputs: what `run` takes, in order.
        outputs: what `run` returns, in order.
    """

    def __init__(
        self, engine: str, device: str, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]
    ) -> None:
        self.engine = engine
        self.device = device
        self.inputs = inputs
        self.outputs = outputs
        self._closed = False

    def run(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        """Compute the outputs of one batch.

        Args:
            *inputs: one array for each of `self.inputs`, of its dtype and shape; nothing is converted.

        Returns:
            One new array for each of `self.outputs`.

        Raises:
            DataError: the number of inputs, a shape or a dtype is wrong.
            UserError: the runtime is closed.
        """
        if self._closed:
            raise UserError(f"This model is closed. Received: a run in {self.engine} after close(). Open it again.")
        if len(inputs) != len(self.inputs):
            raise DataError(
                f"The model reads {len(self.inputs)} inputs ({'; '.join(map(str, self.inputs))}). "
                f"Received: {len(inputs)} arrays. Give one array for each input."
            )
        for spec, array in zip(self.inputs, inputs, strict=True):
            if not isinstance(array, np.ndarray) or not spec.fits(array):
                raise DataError(
                    f"Input {spec.name!r} doesn't fit the model, which reads {spec}. Received: {_received(array)}. "
                    "Give a NumPy array of that dtype and shape."
                )
        return self._run(inputs)

    def close(self) -> None:
        """Free what the engine holds. A second call does nothing."""
        if not self._closed:
            self._closed = True
            self._close()

    @abstractmethod
    def _run(self, inputs: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        """`run`, on inputs that fit."""

    def _close(self) -> None:  # noqa: B027
        """`close`, once."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _received(array: object) -> str:
    return f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
