"""The placement's kernels against the file's: int8 per channel behind a DequantizeLinear, or float, as was planned."""

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from keras_qat.onnx import constant_array, constant_tensor, input_at, keras_nodes, moves, producer
from keras_qat.targets import Target
from keras_qat.types import Placement, QuantSpec, WeightDecision
from keras_qat.verify.deployed import FILE, DeployedFile, Mismatch

_CHANNEL_AXIS = {"Conv": 0, "ConvTranspose": 1, "Gemm": 1, "MatMul": 1}
"""The output-channel axis of the kernel, which is the second input of these operators."""

_KERNEL, _BIAS = 1, 2


def kernel_mismatches(file: DeployedFile, placement: Placement, target: Target) -> Iterator[Mismatch]:
    """Compare every kernel of the file with its decision, and find dequantized constants that are no kernel or bias.

    Args:
        file: from `read_deployed`.
        placement: the plan.
        target: the engine that the file was written for.
    """
    explained: set[str] = set()
    for decision in placement.weights:
        nodes = [node for node in file.nodes if _is_kernel_of(node, decision.layer)]
        if not nodes:
            yield Mismatch(decision.layer, "no node of the file computes with its weights")
        for node in nodes:
            kernel, bias = _dequantize(node, _KERNEL), _dequantize(node, _BIAS)
            yield from (Mismatch(decision.layer, problem) for problem in _kernel_problems(node, kernel, decision))
            if kernel is not None:
                explained.add(_name(kernel))
            if bias is not None and kernel is None and target.rounds_float_kernels:
                explained.add(_name(bias))
            elif bias is not None and target.int32_dense_bias and node.op_type == "Gemm":
                explained.add(_name(bias))
                yield from (Mismatch(decision.layer, problem) for problem in _bias_problems(node))
    for node in file.nodes:
        if _dequantizes_constant(node) and _name(node) not in explained:
            yield Mismatch(next(iter(keras_nodes(node)), FILE), f"the plan left float what {node.name!r} dequantizes")


def is_positive(s: np.ndarray) -> np.ndarray:
    """Whether each scale is positive and finite."""
    positive: np.ndarray = np.isfinite(s) & (s > 0)
    return positive


def _is_kernel_of(node: ir.Node, layer: str) -> bool:
    """Whether a node computes with the kernel of `layer`, in any of its calls (`layer#2`)."""
    if node.op_type not in _CHANNEL_AXIS:
        return False
    called = any(name == layer or name.rpartition("#")[0] == layer for name in keras_nodes(node))
    return called and (_is_stored(input_at(node, _KERNEL)) or _dequantize(node, _KERNEL) is not None)


def _kernel_problems(node: ir.Node, dequantize: ir.Node | None, decision: WeightDecision) -> Iterator[str]:
    if decision.spec is None:
        if dequantize is not None:
            yield f"its weights should be float ({decision.reason}); the file has integers"
    elif dequantize is None:
        yield "its weights should be int8 behind a DequantizeLinear; the file has them in float"
    else:
        yield from _integer_problems(dequantize, decision.spec, _CHANNEL_AXIS[node.op_type])


def _integer_problems(dequantize: ir.Node, spec: QuantSpec, axis: int) -> Iterator[str]:
    q, s, z = (constant_array(input_at(dequantize, index)) for index in range(3))
    if q is None or s is None or z is None:
        yield "the scale or zero-point of its weights is not stored in the file"
        return
    channels, stored_axis = (q.shape[axis],), dequantize.attributes.get_int("axis", 1)
    if q.dtype != np.int8:
        yield f"its weights should be int8; the file has {q.dtype}"
    elif q.min(initial=0) < spec.q_min or q.max(initial=0) > spec.q_max:
        yield f"its weights should be from {spec.q_min} to {spec.q_max}; the file has {q.min()} to {q.max()}"
    if s.shape != channels or stored_axis != axis:
        yield (
            f"its weights should have a scale for each output channel, of shape {channels} along axis {axis}; the file "
            f"has shape {s.shape} along axis {stored_axis}"
        )
    elif not (positive := is_positive(s)).all():
        yield f"the scales of its weights should be positive and finite; channel {np.argmin(positive)} is not"
    if z.dtype != np.int8 or z.shape != s.shape or z.any():
        yield "the zero-points of its weights should be 0 in int8, one a channel"


def _bias_problems(gemm: ir.Node) -> Iterator[str]:
    """A bias in integers must have the scale of the products that it is added to."""
    nodes = [None if value is None else producer(value, moves) for value in gemm.inputs[:3]]
    s_x, s_w, s_b = (None if node is None else constant_array(input_at(node, 1)) for node in nodes)
    if s_x is None or s_w is None or s_b is None or not np.allclose(s_b, s_x.astype(float) * s_w, rtol=1e-6, atol=0):
        yield "the scale of its int32 bias should be that of its input times that of its weights"


def _dequantize(node: ir.Node, index: int) -> ir.Node | None:
    """The DequantizeLinear over a constant that feeds an input."""
    value = input_at(node, index)
    maker = None if value is None else value.producer()
    return maker if maker is not None and _dequantizes_constant(maker) else None


def _dequantizes_constant(node: ir.Node) -> bool:
    return node.op_type == "DequantizeLinear" and _is_stored(input_at(node, 0))


def _is_stored(value: ir.Value | None) -> bool:
    return constant_tensor(value) is not None


def _name(node: ir.Node) -> str:
    return str(node.outputs[0].name)
