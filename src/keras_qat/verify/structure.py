"""The placement's weights against the file's: int8 per channel behind a DequantizeLinear, or float, as was planned.

Is a file what was planned? Its structure is held to the placement; its numbers are the matter of `tensor_errors`.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import onnx_ir as ir

from keras_qat.errors import GateMissedError
from keras_qat.layers import FakeQuantize, scale_of
from keras_qat.onnx import half_scale, keras_nodes
from keras_qat.targets import Target, find_target
from keras_qat.transform import fake_quantize_name
from keras_qat.types import Placement, QuantSpec, WeightDecision
from keras_qat.verify.deployed import FILE, DeployedFile, FileVerification, Finding, constant, read_deployed
from keras_qat.verify.structure_edges import edge_findings, not_positive

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


Scales = Mapping[str, np.floating[Any]]


def verify_file(
    path: str | Path, placement: Placement, target: str | Target | None = None, *, model: Any = None
) -> FileVerification:
    """Hold a file's quantization to the placement, edge for edge and kernel for kernel.

    Args:
        path: an ONNX file that `export_onnx` wrote, of any opset and precision.
        placement: what it was planned to be.
        target: the engine that it was written for; the placement's if not given.
        model: the quantized Keras model that it was exported from. With it, each scale must be the simulated one.

    Returns:
        What is wrong, the first layer of the network first; what ONNX's own checker refuses, strict shape inference
        included, comes last.

    Raises:
        StorageError: the file can't be read, or wasn't written by `export_onnx`.
        UserError: the target is unknown.

    Example:
        >>> import tempfile
        >>> from keras_qat import apply_placement, export_onnx, plan, trace
        >>> from keras_qat.types import TensorRange
        >>> x = keras.Input((8, 8, 3), name="image")
        >>> float_model = keras.Model(x, keras.layers.Conv2D(4, 3, name="conv")(x))
        >>> placement = plan(trace(float_model).graph, "tensorrt")
        >>> model = apply_placement(float_model, placement, {"image": TensorRange(1.0, "minmax", 1)})
        >>> path = export_onnx(model, Path(tempfile.mkdtemp()) / "model.onnx", target="tensorrt")
        >>> verify_file(path, placement, model=model).ok
        True
    """
    file = read_deployed(path)
    found = _findings(file, placement, find_target(placement.target if target is None else target), model)
    order = {name: i for i, name in enumerate(dict.fromkeys(edge.consumer for edge in placement.edges))}
    in_order = sorted(found, key=lambda finding: order.get(finding.layer, len(order)))
    return FileVerification(Path(path), len(placement.edges), (*in_order, *_checker_findings(path)))


def require_verified(
    path: str | Path, placement: Placement, target: str | Target | None = None, *, model: Any = None
) -> None:
    """Refuse a file whose quantization is not the placement's; arguments as of `verify_file`.

    Raises:
        GateMissedError: the file is not as was planned; names the first layer where it shows.
        StorageError: the file can't be read, or wasn't written by `export_onnx`.
    """
    findings = verify_file(path, placement, target, model=model).findings
    if findings:
        raise GateMissedError(
            f"The file isn't quantized as was planned, first at {findings[0].layer!r}: {findings[0].problem}. "
            f"Received: {str(path)!r} with {len(findings)} such places. Don't deploy it; please report the model."
        )


def _checker_findings(path: str | Path) -> Iterator[Finding]:
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        yield Finding(FILE, f"ONNX's checker refuses it: {error}")


def _findings(file: DeployedFile, placement: Placement, target: Target, model: Any) -> Iterator[Finding]:
    half = file.model.metadata_props.get("keras_qat.precision") == "fp16"
    yield from edge_findings(file, placement, {} if model is None else _scales(placement, model, half=half))
    yield from weight_findings(file, placement, target)


def _scales(placement: Placement, model: Any, *, half: bool) -> Scales:
    """The simulated scale of each tensor, as the file should store it."""
    layers = {layer.name: layer for layer in model.layers if isinstance(layer, FakeQuantize)}
    scales = {}
    for tensor in placement.tensors:
        layer = layers.get(fake_quantize_name(tensor.tensor))
        if layer is not None:
            s = np.float32(keras.ops.convert_to_numpy(scale_of(layer.amax, layer.spec)))
            scales[tensor.tensor] = half_scale(float(s)) if half else s
    return scales
