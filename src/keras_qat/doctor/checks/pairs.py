"""Checks of Q/DQ pairs: where they stand, whether both halves are there and agree, and their scales."""

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from keras_qat import onnx
from keras_qat.doctor.findings import Severity, Symptom
from keras_qat.targets import Target
from keras_qat.types import OpKind

_FUSES_ACTIVATION = onnx.CONVOLUTIONS | {"Add", "Gemm"}
"""Operators that engines run as one kernel with the ReLU or Clip behind them."""


def half_pair(file: onnx.OnnxFile, _: Target) -> Iterator[Symptom]:
    """A QuantizeLinear without its DequantizeLinear, or the other way round."""
    lone = [node for node in file.nodes("QuantizeLinear") if not _read_as_integers(node.outputs[0])]
    lone += [node for node in file.nodes("DequantizeLinear") if not _holds_integers(onnx.input_at(node, 0))]
    if lone:
        yield Symptom(
            Severity.WARNING,
            "one half of a Q/DQ pair is missing",
            "engines that fuse pairs leave it in the graph, or refuse it",
            "Look at these nodes in Netron; a pass that removed one half must remove both.",
            tuple(map(onnx.name_of, lone)),
        )


def parted_activation(file: onnx.OnnxFile, target: Target) -> Iterator[Symptom]:
    """A pair between a convolution or Add and its ReLU, which engines run inside the kernel.

    Source: `fused_activations` of the target's table; "Q/DQ Layer-Placement Recommendations",
    https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/work-quantized-types.html.
    """
    names = [onnx.name_of(node) for node in file.nodes(*onnx.ACTIVATIONS) if _parted_from_kernel(node)]
    if names and OpKind.RELU in target.fused_activations:
        yield Symptom(
            Severity.WARNING,
            "a Q/DQ pair stands between a kernel and its ReLU or Clip",
            "the two can't run as one, and the tensor is rounded twice",
            "Quantize behind the activation only. keras-qat does. quantize_static keeps the pair if activations are "
            "symmetric: use activation_type=QuantType.QUInt8, or, for TensorRT, keras-qat or NVIDIA's ModelOpt.",
            tuple(names),
        )


def unfused_batch_norm(file: onnx.OnnxFile, _: Target) -> Iterator[Symptom]:
    """A batch norm that alone reads the result of a convolution.

    Engines fold it into float weights. With quantized weights, or a pair in between, it stays a layer in float.
    """
    inputs = ((node, onnx.input_at(node, 0)) for node in file.nodes("BatchNormalization"))
    names = [onnx.name_of(node) for node, value in inputs if value is not None and onnx.is_unshared(value)]
    if names:
        yield Symptom(
            Severity.WARNING if file.quantized else Severity.NOTE,
            "batch norms follow convolutions and are not folded into them",
            "each is a pass over its tensor in float"
            if file.quantized
            else "quantized as they are, they stay in float",
            "keras-qat folds them at export. Elsewhere fold before you quantize: onnxruntime.quantization's "
            "quant_pre_process, or torch.onnx.export of a model in eval().",
            tuple(names),
        )


def bad_scale(file: onnx.OnnxFile, _: Target) -> Iterator[Symptom]:
    """Scales that are 0, negative, NaN or infinite."""
    names = [name for name, s in _scales(file) if not np.all(np.isfinite(s) & (s > 0))]
    if names:
        yield Symptom(
            Severity.ERROR,
            "scales are 0, negative, NaN or infinite",
            "a division by them gives no finite numbers; TensorRT refuses them",
            "Calibrate again on real images; a tensor that is always 0 needs any positive scale, such as 1.",
            tuple(names),
        )


def tiny_scale(file: onnx.OnnxFile, _: Target) -> Iterator[Symptom]:
    """Scales below the smallest normal number of their type, which many kernels round to 0."""
    names = [name for name, s in _scales(file) if np.any((s > 0) & (s < np.finfo(s.dtype).tiny))]
    if names:
        yield Symptom(
            Severity.WARNING,
            "scales are subnormal numbers",
            "kernels that flush these to 0 divide by 0",
            "Give channels whose weights are all about 0 the scale 1: their integers are 0 in any case.",
            tuple(names),
        )


def unlike_halves(file: onnx.OnnxFile, _: Target) -> Iterator[Symptom]:
    """A DequantizeLinear whose scale or zero-point differs from that of its QuantizeLinear."""
    names = []
    for node in file.nodes("DequantizeLinear"):
        value = onnx.input_at(node, 0)
        quantize = None if value is None else value.producer()
        if quantize is not None and quantize.op_type == "QuantizeLinear" and not _same_parameters(node, quantize):
            names.append(onnx.name_of(node))
    if names:
        yield Symptom(
            Severity.WARNING,
            "the two halves of a Q/DQ pair differ in scale or zero-point",
            "the pair shifts or stretches what passes, and engines can't fuse it",
            "Give both nodes the same two tensors; a tool that rewrote one scale must rewrite the other.",
            tuple(names),
        )


def unequal_scales(file: onnx.OnnxFile, target: Target) -> Iterator[Symptom]:
    """Operations that move integers, between tensors of different scales.

    Source: `shares_range` of the target's table, docs/targets.md.
    """
    names = []
    for op in file.operations:
        after = op.quantizers
        if op.kind not in target.shares_range or not after:
            continue
        if not all(_same_parameters(pair, after[0]) for pair in op.input_pairs if pair is not None):
            names.append(op.name)
    if names:
        yield Symptom(
            Severity.WARNING,
            "poolings or concatenations read and write different scales",
            "the integers must be requantized there, instead of being moved",
            "keras-qat: --target TARGET joins their ranges. quantize_static joins those of max-pools; NNCF "
            "those of concatenations.",
            tuple(names),
        )


def _parted_from_kernel(activation: ir.Node) -> bool:
    """Whether a pair stands between an activation and a kernel that it could run in."""
    value = onnx.input_at(activation, 0)
    dequantize = None if value is None else value.producer()
    if value is None or dequantize is None or dequantize.op_type != "DequantizeLinear":
        return False
    integers = onnx.input_at(dequantize, 0)
    if len(list(onnx.consumers(value))) > 1 or (integers is not None and len(integers.uses()) > 1):
        return False  # Other nodes read the tensor before the activation, so that it must be computed.
    return onnx.is_unshared(value, _FUSES_ACTIVATION)


def _read_as_integers(value: ir.Value) -> bool:
    """Whether a quantized tensor is dequantized, computed with in integers, or an output of the graph."""
    below = onnx.consumers(value, _keeps_integers)
    return any(node is None or node.op_type == "DequantizeLinear" or _computes_in_integers(node) for node in below)


def _holds_integers(value: ir.Value | None) -> bool:
    """Whether a tensor is stored, read, quantized, or computed by an operator in integers."""
    if value is None:
        return False
    origin = onnx.source(value, _keeps_integers)
    node = origin.producer()
    if node is None or node.op_type in {"QuantizeLinear", "DynamicQuantizeLinear"} or _computes_in_integers(node):
        return True
    return onnx.is_constant(origin)


def _keeps_integers(node: ir.Node) -> bool:
    return onnx.moves(node) or node.op_type in {"MaxPool", "Concat"}


def _computes_in_integers(node: ir.Node) -> bool:
    return node.op_type in onnx.INTEGER or node.op_type.startswith("QLinear")


def _scales(file: onnx.OnnxFile) -> Iterator[tuple[str, np.ndarray]]:
    """The name of each Q and DQ node, and its scale if that is stored."""
    for node in file.nodes(*onnx.PAIR):
        scale = onnx.constant_array(onnx.input_at(node, 1))
        if scale is not None and scale.dtype.kind == "f":
            yield onnx.name_of(node), scale


def _same_parameters(a: ir.Node, b: ir.Node) -> bool:
    """Whether two nodes have the same scale and zero-point, as far as these are stored."""
    arrays = (map(onnx.constant_array, both) for both in zip(a.inputs[1:3], b.inputs[1:3], strict=False))
    return all(x is None or y is None or np.array_equal(x, y, equal_nan=False) for x, y in arrays)
