"""FakeQuantize becomes a QuantizeLinear and a DequantizeLinear."""

import keras
import numpy as np
import onnx_ir as ir

from keras_qat.export.onnx.emission import Emission, Step
from keras_qat.export.onnx.registry import register_converter
from keras_qat.layers import FakeQuantize
from keras_qat.layers.arithmetic import SMALLEST_AMAX


@register_converter(FakeQuantize)
def convert_fake_quantize(emission: Emission, step: Step) -> ir.Value:
    """A Q/DQ pair; scale and zero-point are scalars (rank 0), or ONNX Runtime would not fuse `QLinearAdd`."""
    spec = step.layer.spec
    amax = np.float32(keras.ops.convert_to_numpy(step.layer.amax))
    s = np.array(np.maximum(amax, np.float32(SMALLEST_AMAX)) / np.float32(spec.q_max), np.float32)
    z = np.array(spec.zero_point, spec.storage)
    scale = emission.constant(f"{step.name}/scale", s)
    zero_point = emission.constant(f"{step.name}/zero_point", z)
    integers = emission.op(
        "QuantizeLinear",
        [step.inputs[0], scale, zero_point],
        f"{step.name}/QuantizeLinear",
        step.output_shape,
        ir.DataType[spec.storage.upper()],
    )
    return emission.op(
        "DequantizeLinear", [integers, scale, zero_point], f"{step.name}/DequantizeLinear", step.output_shape
    )
