"""One constant in place of several equal ones: a layer that is called five times has its kernel in the file once."""

import re

import numpy as np
import onnx_ir as ir

from keras_qat.onnx.passes.editing import array_of

_LEAST_BYTES = 1024
"""Smaller constants of different layers stay apart: they cost nothing, and their names say what they belong to."""

_HEAD = 16
"""The number of elements by which constants that differ are told apart quickly."""


class ShareConstants(ir.passes.InPlacePass):
    """Let the readers of equal constants read the first. It runs last, since other passes change constants in place."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Share the constants of the main graph."""
        graph, modified = model.graph, False
        kept: dict[tuple[object, ...], list[ir.Value]] = {}
        for value in tuple(graph.initializers.values()):
            if value.const_value is None or value.name is None:
                continue
            name = _layer_constant(value.name)
            array, large = array_of(value), value.const_value.nbytes >= _LEAST_BYTES
            alike = kept.setdefault((value.const_value.dtype, array.shape, array.reshape(-1)[:_HEAD].tobytes()), [])
            candidates = alike if large else [one for one in alike if _layer_constant(one.name) == name]
            first = next((one for one in candidates if np.array_equal(array_of(one), array)), None)
            if first is None:
                alike.append(value)
                continue
            value.replace_all_uses_with(first)
            graph.initializers.pop(value.name)
            modified = True
        return ir.passes.PassResult(model, modified)


def _layer_constant(name: str | None) -> str:
    """The name of a constant without the number of the call: `head#2/kernel` is the `head/kernel` of the same layer.

    Example:
        >>> _layer_constant("head#2/kernel")
        'head/kernel'
    """
    return re.sub(r"#\d+", "", name or "")
