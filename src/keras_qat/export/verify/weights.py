"""The placement's weights against the file's: int8 per channel behind a DequantizeLinear, or float, as was planned."""

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from keras_qat.export.onnx.provenance import keras_nodes
from keras_qat.export.verify.deployed import DeployedFile, constant
from keras_qat.export.verify.finding import FILE, Finding
from keras_qat.export.verify.pairs import not_positive
from keras_qat.targets import Target
from keras_qat.types import Placement, QuantSpec, WeightDecision

_CHANNEL_AXIS = {"Conv": 0, "ConvTranspose": 1, "Gemm": 1, "MatMul": 1}
"""The output-channel axis of the kernel, the second input of these operators."""

_KERNEL, _BIAS = 1, 2


def weight_findings(file: DeployedFile, placement: Placement, target: Target) -> Iterator[Finding]:
    """Hold every kernel of the file to its decision, and every dequantized constant to a kernel or bias."""
    explained: set[str] = set()
    for decision in placement.weights:
        nodes = [node for node in file.model.graph if _is_kernel_of(node, decision.layer)]
        if not nodes:
            yield Finding(decision.layer, "no node of the file computes with its weights")
        for node in nodes:
            yield from (Finding(decision.layer, problem) for problem in _kernel_problems(node, decision))
            dequantize = _dequantize(node, _KERNEL)
            explained |= {_name(dequantize)} if dequantize is not None else set()
            dequantize = _dequantize(node, _BIAS)
            if dequantize is not None and target.int32_dense_bias and node.op_type == "Gemm":
                explained.add(_name(dequantize))
                yield from (Finding(decision.layer, problem) for problem in _bias_problems(node, dequantize))
    for node in file.model.graph:
        if node.op_type == "DequantizeLinear" and constant(node.inputs[0]) and _name(node) not in explained:
            yield Finding(next(iter(keras_nodes(node)), FILE), f"the plan left float what {node.name!r} dequantizes")


def _is_kernel_of(node: ir.Node, layer: str) -> bool:
    """Whether a node computes with the kernel of `layer`, in any of its calls (`layer#2`)."""
    if node.op_type not in _CHANNEL_AXIS or len(node.inputs) <= _KERNEL:
        return False
    called = any(name == layer or name.rpartition("#")[0] == layer for name in keras_nodes(node))
    return called and (constant(node.inputs[_KERNEL]) or _dequantize(node, _KERNEL) is not None)


def _kernel_problems(node: ir.Node, decision: WeightDecision) -> Iterator[str]:
    dequantize = _dequantize(node, _KERNEL)
    if decision.spec is None:
        if dequantize is not None:
            yield f"its weights should be float ({decision.reason}); the file has integers"
    elif dequantize is None:
        yield "its weights should be int8 behind a DequantizeLinear; the file has them in float"
    else:
        yield from _integer_problems(dequantize, decision.spec, _CHANNEL_AXIS[node.op_type])


def _integer_problems(dequantize: ir.Node, spec: QuantSpec, axis: int) -> Iterator[str]:
    arrays = [v.const_value.numpy() for v in dequantize.inputs if v is not None and v.const_value is not None]
    if len(arrays) != 3:  # noqa: PLR2004
        yield "the scale or zero-point of its weights is not stored in the file"
        return
    q, s, z = arrays
    channels = (q.shape[axis],)
    if q.dtype != np.int8:
        yield f"its weights should be int8; the file has {q.dtype}"
    elif q.min(initial=0) < spec.q_min or q.max(initial=0) > spec.q_max:
        yield f"its weights should be from {spec.q_min} to {spec.q_max}; the file has {q.min()} to {q.max()}"
    if s.shape != channels or dequantize.attributes.get_int("axis", 1) != axis:
        yield (
            f"its weights should have a scale for each output channel, of shape {channels} along axis {axis}; the file "
            f"has shape {s.shape} along axis {dequantize.attributes.get_int('axis', 1)}"
        )
    elif not_positive(s):
        yield f"the scales of its weights should be positive and finite; channel {_first_bad(s)} is not"
    if z.dtype != np.int8 or z.shape != s.shape or z.any():
        yield "the zero-points of its weights should be 0 in int8, one a channel"


def _bias_problems(gemm: ir.Node, bias: ir.Node) -> Iterator[str]:
    """A bias in integers must have the scale of the products that it is added to."""
    nodes = [None if v is None else v.producer() for v in gemm.inputs[:2]]
    scales = [node.inputs[1] for node in (*nodes, bias) if node is not None and len(node.inputs) > 1]
    s_x, s_w, s_b = (
        v.const_value.numpy().astype(np.float64) if v is not None and v.const_value is not None else None
        for v in (*scales, *[None] * (3 - len(scales)))
    )
    if s_x is None or s_w is None or s_b is None or not np.allclose(s_b, s_x * s_w, rtol=1e-6, atol=0):
        yield "the scale of its int32 bias should be that of its input times that of its weights"


def _dequantize(node: ir.Node, index: int) -> ir.Node | None:
    """The DequantizeLinear over a constant that feeds an input."""
    value = node.inputs[index] if len(node.inputs) > index else None
    made = None if value is None else value.producer()
    return made if made is not None and made.op_type == "DequantizeLinear" and constant(made.inputs[0]) else None


def _first_bad(s: np.ndarray) -> int:
    return int(np.flatnonzero(~(np.isfinite(s) & (s > 0)))[0])


def _name(node: ir.Node) -> str:
    return str(node.outputs[0].name)
