"""Operations of `keras.ops` on a stored kernel, read as the layer that does the same with a weight.

A layer of the user's own that convolves by `keras.ops.conv(x, self.kernel)` so gets integer weights, and these train.
"""

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
from keras.src.ops import nn, numpy

from keras_qat.graph.kinds import is_known

Rewrite = Callable[[Any, np.ndarray], Any]
"""(operation, kernel) → a layer that computes the same with that kernel, not built; `None` if there is none."""

_CONVOLUTIONS: Mapping[int, Any] = {3: keras.layers.Conv1D, 4: keras.layers.Conv2D, 5: keras.layers.Conv3D}
_DEPTHWISE: Mapping[int, Any] = {3: keras.layers.DepthwiseConv1D, 4: keras.layers.DepthwiseConv2D}
"""By the rank of the kernel."""

_MATRIX_RANK = 2


def _window(operation: Any, kernel: np.ndarray) -> dict[str, Any]:
    """The arguments that the convolution layers share."""
    return {
        "kernel_size": kernel.shape[:-2],
        "strides": operation.strides,
        "padding": operation.padding,
        "data_format": operation.data_format,
        "dilation_rate": operation.dilation_rate,
        "use_bias": False,
    }


def _convolution(operation: Any, kernel: np.ndarray) -> Any:
    """A convolution without groups: on symbolic tensors, `keras.ops.conv` takes no others."""
    return _CONVOLUTIONS[kernel.ndim](kernel.shape[-1], **_window(operation, kernel))


def _depthwise(operation: Any, kernel: np.ndarray) -> Any:
    kind = _DEPTHWISE.get(kernel.ndim)
    return None if kind is None else kind(depth_multiplier=kernel.shape[-1], **_window(operation, kernel))


def _product(operation: Any, kernel: np.ndarray) -> Any:  # noqa: ARG001
    return keras.layers.Dense(kernel.shape[-1], use_bias=False) if kernel.ndim == _MATRIX_RANK else None


_REWRITES: Mapping[type, Rewrite] = {nn.Conv: _convolution, nn.DepthwiseConv: _depthwise, numpy.Matmul: _product}


def stored_kernel(operation: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """The kernel of a call that `weighted_layer` may replace.

    Args:
        operation: a layer, or an operation of `keras.ops`.
        args: the positional arguments of its call: symbolic tensors, weights and constants.
        kwargs: its keyword arguments, likewise.

    Returns:
        The weight or constant; `None` if the operation is in no table, or reads its kernel from the model.
    """
    operands = (*args, *kwargs.values())
    if type(operation) not in _REWRITES or not isinstance(operands[0], keras.KerasTensor):
        return None
    return None if isinstance(operands[1], keras.KerasTensor) else operands[1]


def settings_of(operation: Any) -> tuple[str, ...]:
    """What tells two operations on one kernel apart."""
    names = ("strides", "padding", "data_format", "dilation_rate")
    return (type(operation).__name__, *(repr(getattr(operation, name, None)) for name in names))


def weighted_layer(operation: Any, x: Any, kernel: Any) -> keras.layers.Layer | None:
    """The layer that computes what an operation computes with a stored kernel.

    Args:
        operation: an operation of `keras.ops`.
        x: the symbolic tensor that it reads.
        kernel: its kernel, a weight or constant.

    Returns:
        A built layer with the kernel as its weight; `None` if no layer of a known type computes the same, or if one of
        the operands isn't float32.

    Example:
        >>> weighted_layer(numpy.Matmul(), keras.KerasTensor((None, 4)), np.ones((4, 2), "float32")).units
        2
    """
    numbers = np.asarray(keras.ops.convert_to_numpy(kernel))
    layer: Any = _REWRITES[type(operation)](operation, numbers)
    # In a lower precision the operation rounds its operands, and the layer would round elsewhere.
    if layer is None or not is_known(layer) or {x.dtype, str(numbers.dtype)} != {"float32"}:
        return None
    layer.build(x.shape)
    layer.set_weights([numbers])
    return layer
