"""A file and what it was made from."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_qat.layers import FakeQuantize
from keras_qat.types import Placement


@dataclass(frozen=True, eq=False)
class Case:
    """One ONNX file to hold to its origin.

    Args:
        name: what a message calls it.
        file: the ONNX file.
        model: the Keras model that it was exported from.
        placement: what it was planned to be; `None` if that isn't known, or nothing was to be quantized.
        baseline: the float Keras model, by which the share of equal classes is promised; `None` if it isn't known.
    """

    name: str
    file: Path
    model: Any
    placement: Placement | None = None
    baseline: Any = None

    @property
    def quantized(self) -> bool:
        """Whether activations of the Keras model are quantized."""
        return is_quantized(self.model)


def is_quantized(model: Any) -> bool:
    """Whether activations of a Keras model are quantized.

    Where only weights are, nothing is rounded at run time, and the file computes the same to many digits.

    Example:
        >>> import keras
        >>> is_quantized(keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]))
        False
    """
    return any(isinstance(layer, FakeQuantize) for layer in model.layers)
