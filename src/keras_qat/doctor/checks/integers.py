"""Checks of the integers of Q/DQ pairs: their type and zero-point, and what an engine does with them."""

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from keras_qat import onnx
from keras_qat.doctor.findings import Severity, Symptom
from keras_qat.machine import read_cpu
from keras_qat.targets import Target

_SYMMETRIC = (
    "keras-qat: --target tensorrt. quantize_static: activation_type=QuantType.QInt8, "
    "extra_options={'ActivationSymmetric': True}. NNCF 3.4 writes uint8 for TargetDevice.GPU too: use another tool."
)

_SEVEN_BITS = 64
"""The sum of two products of uint8 and weights up to this magnitude fits 16 bits: 2 · 255 · 64 < 2^15."""


def int32_bias(file: onnx.OnnxFile, target: Target) -> Iterator[Symptom]:
    """Biases in int32, where the engine dequantizes none: TensorRT dequantizes INT8, INT4, FP8 and FP4 only.

    Source: https://github.com/onnx/onnx-tensorrt/blob/main/docs/operators.md, "DequantizeLinear"; the same refusal in
    https://github.com/microsoft/onnxruntime/issues/14229; observed with TensorRT-RTX 1.7.
    """
    if target.limits.int32_dequantize:
        return
    stored = [(node, onnx.constant_tensor(onnx.input_at(node, 0))) for node in file.nodes("DequantizeLinear")]
    names = [onnx.name_of(node) for node, x in stored if x is not None and x.dtype is ir.DataType.INT32]
    if names:
        yield Symptom(
            Severity.ERROR,
            "biases are int32 behind a DequantizeLinear",
            f"{target.title} refuses the file: it dequantizes no int32",
            "keras-qat: --target tensorrt. quantize_static: extra_options={'QuantizeBias': False}.",
            tuple(names),
        )


_INT32 = 2.0**31 - 1


def bias_overflow(file: onnx.OnnxFile, target: Target) -> Iterator[Symptom]:
    """Biases that don't fit 32 bits in steps of s_x · s_w, as those of filters whose weights are next to nothing.

    A bias that is stored in int32 was cut off if it is at the end of the range. ONNX Runtime rounds a float bias
    itself.
    Source: `QuantizeBias` in onnxruntime/core/optimizer/qdq_transformer, https://github.com/microsoft/onnxruntime;
    observed with ONNX Runtime 1.32: a bias of 2 behind weights of 1e-12 became another number.
    """
    if not target.limits.adds_bias_in_int32:
        return
    names = [op.name for op in file.weighted if op.quantized and _bias_overflows(op)]
    if names:
        yield Symptom(
            Severity.ERROR,
            "biases are too large for 32 bits, in steps of the scales of input and weights",
            f"{target.title} computes other numbers for these channels without a message",
            "Give these channels larger weight scales, as keras-qat does when it exports: their weights are nothing "
            "beside the bias.",
            tuple(names),
        )


def _bias_overflows(op: onnx.Operation) -> bool:
    value, s = onnx.input_at(op.node, 2), onnx.product_scale(op.node)
    if value is None or op.integer:
        return False
    stored = onnx.constant_array(onnx.before_pair(value))
    if stored is not None and stored.dtype == np.int32:
        return bool(np.any(np.abs(stored.astype(np.float64)) >= _INT32))
    if stored is None or s is None:
        return False
    b = np.abs(stored.astype(np.float64)).reshape(-1)
    return s.size in {1, b.size} and bool(np.any(b > _INT32 * s))


def zero_point(file: onnx.OnnxFile, target: Target) -> Iterator[Symptom]:
    """Zero-points other than 0, where the engine quantizes symmetrically, as TensorRT does.

    Source: https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/work-quantized-types.html; the
    parser says "Non-zero zero point is not supported".
    """
    if target.limits.asymmetric:
        return
    shifted = {onnx.name_of(node): z for node in file.nodes("DequantizeLinear") if (z := _zero_point(node)).any()}
    if shifted:
        middle = all(z.dtype == np.uint8 and np.all(z == 128) for z in shifted.values())  # noqa: PLR2004
        same = " (uint8 around 128: the same numbers as int8 around 0, so nothing else changes)" if middle else ""
        yield Symptom(
            Severity.ERROR,
            f"zero-points are not 0{same}",
            f"{target.title} refuses the file: it quantizes symmetrically",
            _SYMMETRIC,
            tuple(shifted),
        )


def unsigned(file: onnx.OnnxFile, target: Target) -> Iterator[Symptom]:
    """Activations in uint8 around 0, which TensorRT reads as int8: its parser warns "Defaulting to INT8 instead".

    Source: `QuantDequantLinearHelper` in https://github.com/onnx/onnx-tensorrt/blob/main/onnxOpImporters.cpp.
    """
    if target.limits.uint8:
        return
    zeros = [(node, _zero_point(node)) for node in file.nodes("DequantizeLinear")]
    names = [onnx.name_of(node) for node, z in zeros if z.dtype == np.uint8 and not z.any()]
    if names:
        yield Symptom(
            Severity.ERROR,
            "activations are uint8 with zero-point 0",
            f"{target.title} reads them as int8: values above 127 are clipped, and accuracy falls without a message",
            _SYMMETRIC,
            tuple(names),
        )


def shared_int8(file: onnx.OnnxFile, target: Target) -> Iterator[Symptom]:
    """Activations in int8 that several nodes read, in ONNX Runtime on x86, whose kernels read uint8.

    ONNX Runtime turns a pair into uint8 if one node reads it. If several do, as in residual networks, the kernels on
    both sides stay in float, as seen in the graphs that ONNX Runtime 1.32 optimized.
    Source: https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html, "Data type selection";
    onnxruntime/core/optimizer/qdq_transformer/qdq_s8_to_u8.cc, https://github.com/microsoft/onnxruntime.
    """
    if not target.limits.floats_shared_int8:
        return
    activations = [node for node in file.nodes("QuantizeLinear") if not _quantizes_constant(node)]
    shared = [node for node in activations if _zero_point(node).dtype == np.int8 and _consumer_count(node) > 1]
    if shared:
        yield Symptom(
            Severity.WARNING,
            "activations in int8 are read by several nodes",
            f"on x86 {target.title} runs the kernels on both sides of them in float (ResNet50: 38 to 55 ms, "
            "with uint8 12)",
            "keras-qat: --target onnxruntime. quantize_static: activation_type=QuantType.QUInt8.",
            tuple(map(onnx.name_of, shared)),
        )


def saturation(file: onnx.OnnxFile, target: Target) -> Iterator[Symptom]:
    """Products that overflow 16 bits on this machine, if its CPU is an x86 without VNNI.

    Sources: https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html, "U8S8 and saturation";
    https://docs.openvino.ai/latest/pot_saturation_issue.html.
    """
    if not target.limits.exact or read_cpu().vnni is not False:
        return
    names = [op.name for op in file.weighted if _exceeds_seven_bits(op)]
    if names:
        yield Symptom(
            Severity.NOTE,
            "weights use all of int8, and this CPU has no VNNI",
            "sums of two products saturate at 16 bits here, so that results differ from those on a CPU with VNNI",
            target.limits.exact,
            tuple(names),
        )


def _zero_point(node: ir.Node) -> np.ndarray:
    """The zero-point of a Q or DQ node, in the type of its integers; uint8 0 if the file does not say."""
    z = onnx.constant_array(onnx.input_at(node, 2))
    if z is not None:
        return z
    stored = onnx.constant_array(onnx.input_at(node, 0)) if node.op_type == "DequantizeLinear" else None
    return np.zeros((), np.uint8 if stored is None else stored.dtype)


def _consumer_count(quantize: ir.Node) -> int:
    """The number of nodes that read a tensor behind its pair."""
    outputs = (output for use in quantize.outputs[0].uses() for output in use.node.outputs[:1])
    return sum(len(list(onnx.consumers(output))) for output in outputs)


def _quantizes_constant(node: ir.Node) -> bool:
    value = onnx.input_at(node, 0)
    return value is not None and onnx.is_constant(value)


def _exceeds_seven_bits(op: onnx.Operation) -> bool:
    q = onnx.constant_array(onnx.before_pair(op.kernel))
    return q is not None and q.dtype == np.int8 and bool(np.any(np.abs(q.astype(int)) > _SEVEN_BITS))
