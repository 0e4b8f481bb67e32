"""The layout of images in Keras and in the file.

Inside the file every rank-4 tensor is NCHW, the layout that the engines compute in, whatever the `data_format` of the
Keras model. Converters give axes, shapes and constants in Keras's layout, and `Layout` translates them.
"""

from dataclasses import dataclass

import keras
import numpy as np

from keras_qat.errors import UnsupportedModelError
from keras_qat.graph import Trace

Shape = tuple[int | None, ...]

BATCH = "batch"
"""The name of the dynamic batch axis."""

IMAGE_RANK = 4
MATRIX_RANK = 2

HEIGHT_AND_WIDTH = (2, 3)
"""The axes of an image's pixels in the file's layout."""


@dataclass(frozen=True)
class Layout:
    """The layout of a Keras model's images.

    Args:
        channels_last: whether an image is (batch, height, width, channels) and not (batch, channels, height, width).
    """

    channels_last: bool = True

    @property
    def to_file(self) -> tuple[int, ...]:
        """The permutation from Keras's axes to the file's."""
        return (0, 3, 1, 2) if self.channels_last else (0, 1, 2, 3)

    @property
    def to_keras(self) -> tuple[int, ...]:
        """The permutation from the file's axes to Keras's."""
        return (0, 2, 3, 1) if self.channels_last else (0, 1, 2, 3)

    def moves(self, rank: int) -> bool:
        """Whether the axes of a tensor of that rank have another order in the file."""
        return rank == IMAGE_RANK and self.channels_last

    def axis(self, axis: int, rank: int) -> int:
        """The index in the file of a Keras axis.

        Example:
            >>> Layout().axis(-1, 4), Layout(channels_last=False).axis(1, 4), Layout().axis(-1, 2)
            (1, 1, 1)
        """
        axis %= rank
        return self.to_file.index(axis) if rank == IMAGE_RANK else axis

    def shape(self, shape: Shape) -> list[int | str | None]:
        """The shape in the file of a Keras shape, with the batch axis named.

        Example:
            >>> Layout().shape((None, 7, 5, 64))
            ['batch', 64, 7, 5]
        """
        named = named_shape(shape)
        return [named[axis] for axis in self.to_file] if len(shape) == IMAGE_RANK else named

    def spatial(self, shape: Shape) -> Shape:
        """Height and width in the Keras shape of an image.

        Example:
            >>> Layout(channels_last=False).spatial((None, 64, 7, 5))
            (7, 5)
        """
        return shape[1:3] if self.channels_last else shape[2:4]

    def pooled(self, shape: Shape) -> Shape:
        """The Keras shape of an image with height and width reduced to 1."""
        batch, *_ = shape
        return (batch, 1, 1, shape[3]) if self.channels_last else (batch, shape[1], 1, 1)

    def constant(self, array: np.ndarray, rank: int) -> np.ndarray:
        """The file's form, in float32, of a constant that Keras broadcasts against a tensor of that rank.

        A single number becomes a scalar.

        Example:
            >>> Layout().constant(np.array([1.0, 2.0, 3.0]), 4).shape
            (1, 3, 1, 1)
        """
        array = np.asarray(array, np.float32)
        if array.size == 1:
            return array.reshape(())
        spread = array.reshape((1,) * (rank - array.ndim) + array.shape)
        return np.ascontiguousarray(spread.transpose(self.to_file)) if rank == IMAGE_RANK else spread


def named_shape(shape: Shape) -> list[int | str | None]:
    """A shape in Keras's layout, with the batch axis named."""
    return [BATCH if axis == 0 and size is None else size for axis, size in enumerate(shape)]


def layout_of(trace: Trace) -> Layout:
    """Read the layout of a model's images from the `data_format` of its layers.

    Raises:
        UnsupportedModelError: If the layers of the model have different data formats.
    """
    formats: dict[str, str] = {}
    for name, call in trace.calls.items():
        data_format = getattr(call.operation, "data_format", None)
        # A Flatten may have either format, whatever the model computes in.
        if data_format is not None and not isinstance(call.operation, keras.layers.Flatten):
            formats.setdefault(str(data_format), name)
    if len(formats) > 1:
        received = ", ".join(f"{data_format} in {name!r}" for data_format, name in formats.items())
        raise UnsupportedModelError(
            f"The layers of the model {trace.name!r} must have one data_format to be exported. Received: {received}. "
            "Build the model with one of them; the file computes in NCHW either way."
        )
    return Layout(channels_last=next(iter(formats), keras.config.image_data_format()) == "channels_last")
