"""Keep a softmax in float where the integer kernel of the engine computes something else than the file says.

ONNX Runtime 1.32 runs DequantizeLinear → Softmax → QuantizeLinear as QLinearSoftmax, which adds whole numbers from a
table of exponentials and multiplies by 1 / s rounded to a whole number. Its results were up to 0.17 of a step from
those that the file says, which carried 3% of a tensor's numbers over a border. An operation between keeps it away.
"""

import numpy as np
import onnx_ir as ir

from keras_qat.onnx.passes.editing import insert_between, producer_of

_LEAST = np.float32(-3e38)


class FloatSoftmax(ir.passes.InPlacePass):
    """DequantizeLinear → Softmax → QuantizeLinear becomes DequantizeLinear → Max → Softmax → QuantizeLinear."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Change every softmax between two pairs."""
        found = [node for node in model.graph if node.op_type == "Softmax" and _is_between_pairs(node)]
        for node in found:
            value = node.inputs[0]
            if value is not None:
                insert_between(model.graph, "Max", _LEAST, value, [node], f"{node.name}/float")
        return ir.passes.PassResult(model, modified=bool(found))


def _is_between_pairs(softmax: ir.Node) -> bool:
    before = producer_of(softmax.inputs[0])
    after = {node.op_type for node in softmax.outputs[0].consumers()}
    return before is not None and before.op_type == "DequantizeLinear" and "QuantizeLinear" in after
