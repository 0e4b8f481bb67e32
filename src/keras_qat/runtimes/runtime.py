"""What every engine offers: run a batch, say what and where it is, close."""

from abc import ABC, abstractmethod
from types import TracebackType

import numpy as np
from typing_extensions import Self


class Runtime(ABC):
    """A loaded model that turns images into scores; a context manager that closes itself.

    Args:
        engine: the engine and its version, such as `ONNX Runtime 1.32.0`.
        device: where it runs, such as `CPU, 2 threads`.
    """

    def __init__(self, engine: str, device: str) -> None:
        self.engine = engine
        self.device = device

    @abstractmethod
    def run(self, images: np.ndarray) -> np.ndarray:
        """Score a batch.

        Args:
            images: float32, shape (batch, height, width, channels), preprocessed.

        Returns:
            float32, shape (batch, classes).
        """

    def close(self) -> None:  # noqa: B027
        """Free what the engine holds."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
