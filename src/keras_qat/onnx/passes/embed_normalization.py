"""Embed the normalization of images: the file reads uint8 pixels and first computes x / divisor - offset.

The nodes compute in the type that the input had, one rounding each, in the order of `Preprocessing.normalize`. So in
float32 they compute, bit for bit, the numbers that the plain file is given. A step that changes nothing gets no node.
"""

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from keras_qat.errors import UserError
from keras_qat.onnx.emission import mark_helper
from keras_qat.onnx.layout import IMAGE_RANK
from keras_qat.onnx.passes.editing import new_constant, new_node
from keras_qat.types import Normalization

_CHANNEL_AXIS = 3
_REVERSED = np.array([2, 1, 0], np.int64)


class EmbedNormalization(ir.passes.InPlacePass):
    """image: float → image: uint8 → Cast → Gather (BGR) → Div → Sub. Runs last, when the input has its final type.

    Args:
        normalization: the normalization to compute.
    """

    def __init__(self, normalization: Normalization) -> None:
        super().__init__()
        self.normalization = normalization

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Insert the nodes between the image and its readers.

        Raises:
            UserError: If the model doesn't have exactly one input, an image with as many channels, last.
        """
        graph = model.graph
        image = _only_image(graph, self.normalization.channels)
        readers, first, value = list(image.uses()), graph[0], image
        for op_type, suffix, attributes, operand in _steps(self.normalization, image.dtype or ir.DataType.FLOAT):
            name = f"{image.name}/{suffix}"
            constants = () if operand is None else (new_constant(graph, f"{name}_by", operand),)
            node = new_node(op_type, [value, *constants], name, like=image, **attributes)
            mark_helper(node)
            graph.insert_before(first, node)
            value = node.outputs[0]
        for reader, index in readers:
            reader.replace_input_with(index, value)
        image.dtype = ir.DataType.UINT8
        return ir.passes.PassResult(model, modified=True)


def _steps(
    normalization: Normalization, dtype: ir.DataType
) -> Iterator[tuple[str, str, dict[str, int], np.ndarray | None]]:
    """The operator of each step, a name for its result, its attributes, and its second input."""
    yield "Cast", "pixels", {"to": dtype}, None
    if normalization.reverse_channels:
        yield "Gather", "reversed", {"axis": _CHANNEL_AXIS}, _REVERSED
    if normalization.divides:
        yield "Div", "divided", {}, np.array(normalization.divisor, dtype.numpy())
    if normalization.shifts:
        yield "Sub", "shifted", {}, np.array(normalization.offset, dtype.numpy())


def _only_image(graph: ir.Graph, channels: int) -> ir.Value:
    """The only input of a graph.

    Raises:
        UserError: If there are several inputs, or the only one is not (batch, height, width, channels).
    """
    shapes = [() if value.shape is None else tuple(value.shape) for value in graph.inputs]
    if len(shapes) != 1 or len(shapes[0]) != IMAGE_RANK or shapes[0][_CHANNEL_AXIS] != channels:
        received = "; ".join(f"{value.name} {value.shape}" for value in graph.inputs)
        kind = "gray" if channels == 1 else "RGB"
        raise UserError(
            f"This preprocessing can only be embedded in a model with one input of {kind} images, (batch, height, "
            f"width, {channels}). Images of more than 3 channels and other inputs come as arrays, which have no "
            f"preprocessing. Received: {received}. Export the model without `normalization`, and normalize its input "
            "yourself."
        )
    return graph.inputs[0]
