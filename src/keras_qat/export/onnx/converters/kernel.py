"""The kernel of a weighted layer as ONNX: float, or int8 behind a DequantizeLinear.

The integers and scales are computed exactly as the simulation does, in float32:

    s = max|w| / q_max per output channel,   q = clip(round(w / s), q_min, q_max)
"""

import numpy as np
import onnx_ir as ir

from keras_qat.export.onnx.emission import Emission, Step
from keras_qat.layers import WeightQuantized
from keras_qat.layers.arithmetic import SMALLEST_AMAX


def emit_kernel(emission: Emission, step: Step, kernel: np.ndarray, channel_axis: int) -> ir.Value:
    """Add the kernel's constants.

    Args:
        emission: where to add them.
        step: the weighted layer.
        kernel: its weights, already in the ONNX layout, float32.
        channel_axis: the output-channel axis of `kernel`.

    Returns:
        The float kernel, or the output of the DequantizeLinear over the int8 kernel.
    """
    if not isinstance(step.layer, WeightQuantized):
        return emission.constant(f"{step.name}/kernel", np.ascontiguousarray(kernel))
    q, s = quantize_kernel(kernel, channel_axis, step.layer.weight_spec.q_min, step.layer.weight_spec.q_max)
    integers = emission.constant(f"{step.name}/kernel", q)
    scale = emission.constant(f"{step.name}/kernel_scale", s)
    # Engines read a missing zero-point as 0, but ONNX Runtime makes an integer Gemm only where it is written out.
    zero_point = emission.constant(f"{step.name}/kernel_zero_point", np.zeros(s.shape, np.int8))
    return emission.op(
        "DequantizeLinear",
        [integers, scale, zero_point],
        f"{step.name}/kernel/DequantizeLinear",
        axis=channel_axis,
    )


def quantize_kernel(kernel: np.ndarray, axis: int, q_min: int, q_max: int) -> tuple[np.ndarray, np.ndarray]:
    """Integers and per-channel scales of a float32 kernel.

    Returns:
        The int8 kernel of the same shape, and the float32 scale of each channel, shape (channels,).

    Example:
        >>> q, s = quantize_kernel(np.array([[1.0, -2.0], [0.5, 0.25]], "float32"), 0, -127, 127)
        >>> q.tolist(), (s * 127).tolist()
        ([[64, -127], [127, 64]], [2.0, 0.5])
    """
    others = tuple(a for a in range(kernel.ndim) if a != axis)
    amax = np.max(np.abs(kernel), axis=others, keepdims=True).astype(np.float32)
    s = np.maximum(amax, np.float32(SMALLEST_AMAX)) / np.float32(q_max)
    q = np.clip(np.round(kernel / s), q_min, q_max).astype(np.int8)
    return np.ascontiguousarray(q), s.reshape(-1)
