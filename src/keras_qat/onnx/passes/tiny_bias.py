"""Give each integer convolution without a bias one that changes no number, for OpenVINO.

OpenVINO 2026.4 moves the scales s_x · s_w behind an INT8 convolution, as a multiplication of its own. In a file with an
open batch, where several nodes read the result of that multiplication (or one reads it twice, as x · x does), it
computes 0 or other wrong numbers, without a message. A bias that isn't 0 makes it keep the multiplication inside the
convolution. One of zeros is removed when the file is read, so that the bias is the smallest number that stays.
"""

import numpy as np
import onnx_ir as ir

from keras_qat.onnx.passes.editing import array_of, kernel_of, new_constant, producer_of
from keras_qat.onnx.walk import CONVOLUTIONS, input_at
from keras_qat.types import Precision

_SMALLEST: dict[Precision, float] = {"fp32": 1e-30, "fp16": 6e-8}
"""A number that the file's floating-point type holds, and that vanishes in any sum: FP16 has none below 6e-8."""


class TinyBias(ir.passes.InPlacePass):
    """Conv(x, DQ(w)) becomes Conv(x, DQ(w), b), where b is next to 0."""

    def __init__(self, precision: Precision) -> None:
        """Set the floating-point type of the file."""
        self._smallest = np.float32(_SMALLEST[precision])

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Add a bias to every integer convolution without one."""
        found = [node for node in model.graph if node.op_type in CONVOLUTIONS and _is_unbiased(node)]
        for node in found:
            self._add_bias(model.graph, node)
        return ir.passes.PassResult(model, modified=bool(found))

    def _add_bias(self, graph: ir.Graph, conv: ir.Node) -> None:
        kernel = kernel_of(conv)
        channels = kernel.shape[0] if conv.op_type == "Conv" else kernel.shape[1] * conv.attributes.get_int("group", 1)
        bias = new_constant(graph, f"{conv.name}/bias", np.full(channels, self._smallest))
        conv.resize_inputs(3)
        conv.replace_input_with(2, bias)


def _is_unbiased(conv: ir.Node) -> bool:
    """Whether a convolution has an integer kernel, and no bias or one of zeros."""
    kernel, bias = producer_of(conv.inputs[1]), input_at(conv, 2)
    if kernel is None or kernel.op_type != "DequantizeLinear":
        return False
    return bias is None or (bias.const_value is not None and not array_of(bias).any())
