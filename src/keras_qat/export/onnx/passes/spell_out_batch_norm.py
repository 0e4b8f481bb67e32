"""Write a BatchNormalization that no convolution took over as Mul and Add, for files in FP16.

    y = g · x + h,    g = γ / √(σ² + ε),   h = β - g · μ

In FP16 a variance over 65504 is infinite and an ε of 1e-5 loses bits; g and h, computed here in float64, are harmless.
In float32 the node stays: one operator is faster than two, and loses nothing.
"""

import numpy as np
import onnx_ir as ir

from keras_qat.export.onnx.passes.constants import new_constant, replace_and_remove
from keras_qat.export.onnx.passes.fold_affine import batch_norm_affine
from keras_qat.export.onnx.provenance import keras_nodes, mark


class SpellOutBatchNorm(ir.passes.InPlacePass):
    """BatchNormalization becomes Mul → Add."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Replace every BatchNormalization that is left."""
        left = [node for node in model.graph if node.op_type == "BatchNormalization"]
        for node in left:
            _spell_out(model.graph, node)
        return ir.passes.PassResult(model, modified=bool(left))


def _spell_out(graph: ir.Graph, batch_norm: ir.Node) -> None:
    value, made = batch_norm.inputs[0], batch_norm.outputs[0]
    if value is None:
        return
    channels = -1, *[1] * (len(made.shape or ()) - 2)
    for op_type, array in zip(("Mul", "Add"), batch_norm_affine(batch_norm), strict=True):
        constant = new_constant(
            graph, f"{batch_norm.name}/{op_type.lower()}", array.astype(np.float32).reshape(channels)
        )
        name = str(batch_norm.name) if op_type == "Add" else f"{batch_norm.name}/scale"
        node = ir.node(op_type, [value, constant], name=name)
        mark(node, keras_nodes(batch_norm))
        value = node.outputs[0]
        value.name, value.type, value.shape = f"{name}/output", made.type, made.shape
        graph.insert_before(batch_norm, node)
    replace_and_remove(graph, batch_norm, value)
