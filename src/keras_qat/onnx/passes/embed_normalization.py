"""Let a file normalize its images itself: the input becomes uint8 pixels, and y = x' / divisor - offset comes before.

The nodes compute in the type that the input had, one rounding each, in the order of `Preprocessing.normalize`; so in
float32 they give the numbers that the plain file is fed, bit for bit. An identity leaves no node.
"""

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from keras_qat.errors import UserError
from keras_qat.onnx.emission import mark_helper
from keras_qat.onnx.passes.constants import new_constant
from keras_qat.types import Normalization

_RANK = 4
_CHANNEL_AXIS = 3

_BGR = np.array([2, 1, 0], np.int64)


class EmbedNormalization(ir.passes.InPlacePass):
    """image: float → image: uint8 → Cast → Gather (BGR) → Div → Sub. Runs last, when the input has its final type.

    Args:
        normalization: what to compute.
    """

    def __init__(self, normalization: Normalization) -> None:
        super().__init__()
        self.normalization = normalization

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Put the head before all that reads the image.

        Raises:
            UserError: the model has not exactly one image of as many channels, last, as its input.
        """
        graph = model.graph
        image = _only_image(graph, self.normalization.channels)
        name, dtype = str(image.name), image.dtype or ir.DataType.FLOAT
        uses, first = list(image.uses()), graph[0]
        image.dtype = ir.DataType.UINT8
        value = image
        for op_type, suffix, attributes, operand in _steps(self.normalization, dtype):
            constants = () if operand is None else (new_constant(graph, f"{name}/{suffix}_by", operand),)
            node = ir.node(op_type, [value, *constants], attributes, name=f"{name}/{suffix}")
            value = node.outputs[0]
            value.name, value.dtype, value.shape = f"{name}/{suffix}/output", dtype, image.shape
            mark_helper(node)
            graph.insert_before(first, node)
        for reader, index in uses:
            reader.replace_input_with(index, value)
        return ir.passes.PassResult(model, modified=True)


def _steps(n: Normalization, dtype: ir.DataType) -> Iterator[tuple[str, str, dict[str, int], np.ndarray | None]]:
    """Operator, what it makes of the pixels, its attributes, and its second input."""
    yield "Cast", "pixels", {"to": dtype}, None
    if n.reverse_channels:
        yield "Gather", "reversed", {"axis": _CHANNEL_AXIS}, _BGR
    if n.divides:
        yield "Div", "divided", {}, np.array(n.divisor, dtype.numpy())
    if n.shifts:
        yield "Sub", "shifted", {}, np.array(n.offset, dtype.numpy())


def _only_image(graph: ir.Graph, channels: int) -> ir.Value:
    """The one input, if it is (batch, height, width, channels).

    Raises:
        UserError: it isn't, or there are several.
    """
    shapes = [() if value.shape is None else tuple(value.shape) for value in graph.inputs]
    if len(shapes) != 1 or len(shapes[0]) != _RANK or shapes[0][_CHANNEL_AXIS] != channels:
        received = "; ".join(f"{value.name} {value.shape}" for value in graph.inputs)
        kind = "gray" if channels == 1 else "RGB"
        raise UserError(
            f"This preprocessing can only be embedded in a model with one input of {kind} images, (batch, height, "
            f"width, {channels}). Received: {received}. Export the model without `normalization`, and normalize its "
            "input yourself."
        )
    return graph.inputs[0]
