"""Keep OpenVINO from moving scales to places where it computes something else, by operations that change no number.

OpenVINO 2026.4 moves the scale of a DequantizeLinear behind the operations that read it, so that these read integers.
Four of its moves are wrong, without a message:

- It moves the scales s_x · s_w behind an INT8 convolution, as a multiplication of its own. In a file with an open
  batch, where several nodes read the result of that multiplication (or one reads it twice, as x · x does), it computes
  0 or other wrong numbers. A bias makes it keep the multiplication inside the convolution.
- It moves a scale behind a normalization, (x - μ) / √(σ² + ε), which does not depend on scales but for ε: that is then
  added to the variance of the integers, where it counts s² times as much. A sum before the normalization stops it.
- It takes a Cast of small integers, a Mul and an Add, as of an image that the file normalizes itself, for a
  DequantizeLinear, and rounds constants behind it to its integers. A maximum behind the Cast prevents it.
- It moves a scale behind an average pooling. Where several nodes read the result, the mean is rounded to an integer
  before that. A maximum with the least number of all makes it one reader.

What is added is the smallest number that stays: OpenVINO removes zeros when it reads the file.
"""

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from keras_qat.onnx.emission import keras_nodes
from keras_qat.onnx.passes.editing import array_of, insert_between, kernel_of, new_constant, producer_of
from keras_qat.onnx.walk import CONVOLUTIONS, input_at
from keras_qat.types import Precision

_SMALLEST: dict[Precision, float] = {"fp32": 1e-30, "fp16": 6e-8}
"""A number that the file's floating-point type holds, and that vanishes in any sum: FP16 has none below 6e-8."""

_LEAST: dict[Precision, float] = {"fp32": -3e38, "fp16": -6e4}

_NORMALIZATIONS = frozenset({"LayerNormalization", "InstanceNormalization"})


class PinScales(ir.passes.InPlacePass):
    """Conv(x, DQ(w)) becomes Conv(x, DQ(w), b), and LayerNormalization(x) LayerNormalization(x + b), with b next to 0.

    The same holds for other convolutions and normalizations, and for a normalization that is spelled out. An average
    pooling with several readers becomes Max(AveragePool(x), -3e38).
    """

    def __init__(self, precision: Precision) -> None:
        """Set the floating-point type of the file."""
        self._smallest, self._least = np.float32(_SMALLEST[precision]), np.float32(_LEAST[precision])

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Change every such node of a file with quantized tensors."""
        nodes = list(model.graph)
        if not any(node.op_type == "DequantizeLinear" for node in nodes):
            return ir.passes.PassResult(model, modified=False)
        for node in nodes:
            if node.op_type in CONVOLUTIONS and _is_unbiased(node):
                self._add_bias(model.graph, node)
            if _is_cast_of_integers(node) or (node.op_type == "AveragePool" and len(node.outputs[0].uses()) > 1):
                readers = tuple(node.outputs[0].consumers())
                insert_between(model.graph, "Max", self._least, node.outputs[0], readers, f"{node.name}/readers")
        for value, readers in list(_normalized(nodes)):
            insert_between(model.graph, "Add", self._smallest, value, readers, f"{readers[0].name}/input")
        return ir.passes.PassResult(model, modified=True)

    def _add_bias(self, graph: ir.Graph, conv: ir.Node) -> None:
        kernel = kernel_of(conv)
        channels = kernel.shape[0] if conv.op_type == "Conv" else kernel.shape[1] * conv.attributes.get_int("group", 1)
        bias = new_constant(graph, f"{conv.name}/bias", np.full(channels, self._smallest))
        conv.resize_inputs(3)
        conv.replace_input_with(2, bias)


def _is_cast_of_integers(node: ir.Node) -> bool:
    value = node.inputs[0] if node.inputs else None
    small = value is not None and value.dtype in {ir.DataType.UINT8, ir.DataType.INT8}
    return node.op_type == "Cast" and small and node.outputs[0].dtype is ir.DataType.FLOAT


def _is_unbiased(conv: ir.Node) -> bool:
    """Whether a convolution has an integer kernel, and no bias or one of zeros."""
    kernel, bias = producer_of(conv.inputs[1]), input_at(conv, 2)
    if kernel is None or kernel.op_type != "DequantizeLinear":
        return False
    return bias is None or (bias.const_value is not None and not array_of(bias).any())


def _normalized(nodes: list[ir.Node]) -> Iterator[tuple[ir.Value, tuple[ir.Node, ...]]]:
    """Each tensor that is normalized, and the nodes of the normalization that read it, the first one first.

    Spelled out, a normalization begins with x - mean(x).
    """
    for node in nodes:
        value = node.inputs[0] if node.inputs else None
        if value is None:
            continue
        if node.op_type in _NORMALIZATIONS:
            yield value, (node,)
        elif node.op_type == "ReduceMean":
            off = [user for user in value.consumers() if user.op_type == "Sub" and node.outputs[0] in user.inputs]
            if off and all(keras_nodes(user) == keras_nodes(node) for user in off):
                yield value, (node, *off)
