"""The layout of images in Keras and in the file.

Inside the file the channels of images are axis 1, as the engines compute, whatever the `data_format` of the Keras
model: every rank-4 tensor is NCHW. Tensors of rank 3 and 5 have their channels there only in a model with windows over
one or three axes, such as Conv1D or MaxPooling3D: the tokens of a transformer stay as they are. Converters give axes,
shapes and constants in Keras's layout, and `Layout` translates them.
"""

from dataclasses import dataclass

import keras
import numpy as np
from keras.src.layers.convolutional.base_conv import BaseConv
from keras.src.layers.convolutional.base_conv_transpose import BaseConvTranspose
from keras.src.layers.convolutional.base_depthwise_conv import BaseDepthwiseConv
from keras.src.layers.pooling.base_adaptive_pooling import BaseAdaptivePooling
from keras.src.layers.pooling.base_pooling import BasePooling
from keras.src.ops import nn

from keras_qat.errors import UnsupportedModelError
from keras_qat.graph import Trace

Shape = tuple[int | None, ...]

BATCH = "batch"
"""The name of the dynamic batch axis."""

IMAGE_RANK = 4
MATRIX_RANK = 2

_WINDOWS = (
    *(BaseConv, BaseConvTranspose, BaseDepthwiseConv, BasePooling, BaseAdaptivePooling),
    *(nn.Conv, nn.ConvTranspose, nn.DepthwiseConv, nn.SeparableConv),
    *(nn.MaxPool, nn.AveragePool, nn.AdaptiveMaxPool, nn.AdaptiveAveragePool),
)
"""Layers and operations that slide a window over an image, which engines do along the axes behind the channels."""


@dataclass(frozen=True)
class Layout:
    """The layout of a Keras model's images.

    Args:
        channels_last: whether an image is (batch, height, width, channels) and not (batch, channels, height, width).
        ranks: the ranks of the tensors whose channels are axis 1 in the file.
    """

    channels_last: bool = True
    ranks: frozenset[int] = frozenset({IMAGE_RANK})

    def to_file(self, rank: int) -> tuple[int, ...]:
        """The permutation from Keras's axes to the file's.

        Example:
            >>> Layout().to_file(4), Layout().to_file(3)
            ((0, 3, 1, 2), (0, 1, 2))
        """
        return (0, rank - 1, *range(1, rank - 1)) if self.moves(rank) else tuple(range(rank))

    def to_keras(self, rank: int) -> tuple[int, ...]:
        """The permutation from the file's axes to Keras's.

        Example:
            >>> Layout().to_keras(4)
            (0, 2, 3, 1)
        """
        return (0, *range(2, rank), 1) if self.moves(rank) else tuple(range(rank))

    def moves(self, rank: int) -> bool:
        """Whether the axes of a tensor of that rank have another order in the file."""
        return self.channels_last and rank in self.ranks

    def axis(self, axis: int, rank: int) -> int:
        """The index in the file of a Keras axis.

        Example:
            >>> Layout().axis(-1, 4), Layout(channels_last=False).axis(1, 4), Layout().axis(-1, 2)
            (1, 1, 1)
        """
        return self.to_file(rank).index(axis % rank)

    def shape(self, shape: Shape) -> list[int | str | None]:
        """The shape in the file of a Keras shape, with the batch axis named.

        Example:
            >>> Layout().shape((None, 7, 5, 64))
            ['batch', 64, 7, 5]
        """
        named = named_shape(shape)
        return [named[axis] for axis in self.to_file(len(shape))]

    def spatial(self, shape: Shape) -> Shape:
        """The sizes in the Keras shape of an image but for batch and channels: height and width.

        Example:
            >>> Layout(channels_last=False).spatial((None, 64, 7, 5))
            (7, 5)
        """
        return shape[1:-1] if self.channels_last else shape[2:]

    def pooled(self, shape: Shape) -> Shape:
        """The Keras shape of an image with all sizes but batch and channels reduced to 1."""
        ones = (1,) * (len(shape) - 2)
        return (shape[0], *ones, shape[-1]) if self.channels_last else (*shape[:2], *ones)

    def constant(self, array: np.ndarray, rank: int) -> np.ndarray:
        """The file's form of a constant that Keras broadcasts against a tensor of that rank.

        A single number becomes a scalar; 64-bit floating-point numbers become float32.

        Example:
            >>> Layout().constant(np.array([1.0, 2.0, 3.0]), 4).shape
            (1, 3, 1, 1)
        """
        array = np.asarray(array)
        array = array.astype(np.float32) if array.dtype.kind == "f" else array
        return array.reshape(()) if array.size == 1 else self.full(array, rank)

    def full(self, array: np.ndarray, rank: int) -> np.ndarray:
        """The file's form of a constant, in that rank.

        Example:
            >>> Layout().full(np.array([1.0]), 4).shape
            (1, 1, 1, 1)
        """
        spread = array.reshape((1,) * (rank - array.ndim) + array.shape)
        return np.ascontiguousarray(spread.transpose(self.to_file(rank)))


def spatial_axes(rank: int) -> tuple[int, ...]:
    """The axes of an image's pixels in the file's layout.

    Example:
        >>> spatial_axes(4)
        (2, 3)
    """
    return tuple(range(2, rank))


def named_shape(shape: Shape) -> list[int | str | None]:
    """A shape in Keras's layout, with the batch axis named."""
    return [BATCH if axis == 0 and size is None else size for axis, size in enumerate(shape)]


def layout_of(trace: Trace) -> Layout:
    """Read the layout of a model's images from the `data_format` of its layers, and from the ranks of their windows.

    Raises:
        UnsupportedModelError: If the layers of the model have different data formats.
    """
    formats: dict[str, str] = {}
    ranks = {IMAGE_RANK}
    for name, call in trace.calls.items():
        if isinstance(call.operation, _WINDOWS):
            ranks.add(len(call.output_shapes[0]))
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
    channels_last = next(iter(formats), keras.config.image_data_format()) == "channels_last"
    return Layout(channels_last, frozenset(ranks))
