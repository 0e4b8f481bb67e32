"""Make the scales of Q/DQ nodes numbers that FP16 holds, before the file is turned to FP16.

Folded batch norms leave per-channel weight scales far under FP16's smallest normal number t = 2^-14. There FP16 has
only the multiples of 2^-24, so a scale is raised to the next of them and its channel requantized:

    s' = fp16(s)                      for s ≥ t
    s' = 2^-24 · ceil(s / 2^-24)      for s < t
    q' = round(q · s / s')

No weight moves by more than s' / 2, as in the quantization before. A scale of t or more changes by at most 2^-11 of
itself, so that q · s / s' is within 127 · 2^-11 = 0.06 of q, and no integer changes. Raising small scales to t itself
would move weights by up to t / 2 = 3.1e-5, which ResNet50's first convolution doesn't forgive (docs/architecture.md).

The scale of an activation can't be raised so: its integers come at run time. It must be a normal number of FP16, and
its largest number must be finite. A tensor that calibration saw to be all zero gets the scale 1, and stays zero.
"""

import numpy as np
import onnx_ir as ir

from keras_qat.errors import UnsupportedModelError
from keras_qat.export.onnx.passes.constants import array_of, set_array
from keras_qat.export.onnx.provenance import keras_nodes
from keras_qat.layers.arithmetic import SMALLEST_AMAX

SMALLEST = float(np.finfo(np.float16).smallest_normal)
STEP = float(np.finfo(np.float16).smallest_subnormal)
LARGEST = float(np.finfo(np.float16).max)


def half_scale(s: float) -> np.float32:
    """The FP16 scale that stands for an activation's float32 scale, as a float32 number.

    Example:
        >>> float(half_scale(0.1)), float(half_scale(1e-32))
        (0.0999755859375, 1.0)
    """
    return np.float32(1) if s <= SMALLEST_AMAX else np.float32(np.float16(s))


class HalfScales(ir.passes.InPlacePass):
    """Scales → the nearest ones that FP16 holds, still stored in float32."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Change the scale of every Q/DQ node, and the integers behind the scales that had to be raised."""
        modified = False
        for node in model.graph:
            if node.op_type == "DequantizeLinear" and node.inputs[0] is not None:
                change = _activation if node.inputs[0].const_value is None else _weights
                change(node, *(value for value in node.inputs if value is not None))
                modified = True
        return ir.passes.PassResult(model, modified)


def _activation(dequantize: ir.Node, _: ir.Value, scale: ir.Value, zero_point: ir.Value) -> None:
    s, z = array_of(scale), array_of(zero_point)
    limits = np.iinfo(z.dtype)
    largest = float(s) * max(limits.max - int(z), int(z) - limits.min)
    halved = np.array(half_scale(float(s)), np.float32)
    if halved < SMALLEST or largest > LARGEST:
        bound = f"its scale is under {SMALLEST:.2g}" if halved < SMALLEST else f"it is over {LARGEST:.0f}"
        raise UnsupportedModelError(
            f"The quantized tensor {_layer(dequantize)!r} doesn't fit FP16: {bound}. Received: the scale "
            f'{float(s):.3g}, a range up to {largest:.3g}. Export with precision="fp32".'
        )
    set_array(scale, halved)


def _weights(dequantize: ir.Node, integers: ir.Value, scale: ir.Value, _: ir.Value) -> None:
    q, s = array_of(integers), array_of(scale).astype(np.float64)
    q_max = np.iinfo(np.int8).max
    if np.any(s * q_max > LARGEST):
        raise UnsupportedModelError(
            f"The weights of {_layer(dequantize)!r} don't fit FP16. Received: weights up to {s.max() * q_max:.3g}; "
            f'FP16 ends at {LARGEST:.0f}. Export with precision="fp32".'
        )
    raised = np.where(s < SMALLEST, STEP * np.ceil(s / STEP), s.astype(np.float16))
    axis = dequantize.attributes["axis"].as_int()
    spread = [-1 if a == axis else 1 for a in range(q.ndim)]
    requantized = np.round(q * (s / raised).reshape(spread)).astype(q.dtype)
    set_array(integers, requantized)
    set_array(scale, raised.astype(np.float32))


def _layer(node: ir.Node) -> str:
    return next(iter(keras_nodes(node)), str(node.name))
