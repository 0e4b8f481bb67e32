"""Leave out what a file says twice: in a small network such texts are larger than the weights.

- The type and shape of what QuantizeLinear and DequantizeLinear make. The shape is that of their first input, and the
  type follows from the operator and the zero-point, so that every reader infers them. All other tensors keep theirs:
  viewers such as Netron show them, and don't infer.
- The record of the Keras nodes that a node stands for, where its name begins with the same Keras node.
"""

import onnx_ir as ir

from keras_qat.onnx.emission import drop_record
from keras_qat.onnx.walk import PAIR


class LeaveOut(ir.passes.InPlacePass):
    """Remove repeated types, shapes and records. It runs last, since other passes read them."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Shorten the main graph."""
        for node in model.graph:
            drop_record(node)
            made = node.outputs if node.op_type in PAIR else ()
            for value in made:
                if not value.is_graph_output():
                    value.type, value.shape = None, None
        return ir.passes.PassResult(model, modified=True)
