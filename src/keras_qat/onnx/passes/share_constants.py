"""One constant in place of several equal ones: a layer that is called five times has its kernel in the file once."""

import numpy as np
import onnx_ir as ir

from keras_qat.onnx.passes.editing import array_of

_LEAST_BYTES = 1024
"""Smaller constants stay apart: they cost nothing, and their names say what they belong to."""

_HEAD = 16
"""The number of elements by which constants that differ are told apart quickly."""


class ShareConstants(ir.passes.InPlacePass):
    """Let the readers of equal constants read the first. It runs last, since other passes change constants in place."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Share the constants of the main graph."""
        graph, modified = model.graph, False
        kept: dict[tuple[object, ...], list[ir.Value]] = {}
        for value in tuple(graph.initializers.values()):
            if value.const_value is None or value.const_value.nbytes < _LEAST_BYTES or value.name is None:
                continue
            array = array_of(value)
            alike = kept.setdefault((value.const_value.dtype, array.shape, array.reshape(-1)[:_HEAD].tobytes()), [])
            first = next((one for one in alike if np.array_equal(array_of(one), array)), None)
            if first is None:
                alike.append(value)
                continue
            value.replace_all_uses_with(first)
            graph.initializers.pop(value.name)
            modified = True
        return ir.passes.PassResult(model, modified)
