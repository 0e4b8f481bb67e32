"""Checks of convolutions and matrix products: which run in integers, and which should but can't."""

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from keras_qat import onnx, targets
from keras_qat.doctor.findings import Severity, Symptom
from keras_qat.types import OpKind

_DOCS = "docs/overrides.md says how to leave a layer in float on purpose"


def float_file(file: onnx.OnnxFile, _: targets.Target) -> Iterator[Symptom]:
    """A file in which nothing is quantized."""
    if file.weighted and not file.quantized:
        yield Symptom(
            Severity.WARNING,
            "the file is float: nothing in it is quantized",
            "four times as large as INT8, and about three times as slow on CPUs with VNNI (ResNet50)",
            "Quantize the Keras model: keras-qat run --model MODEL --target TARGET --data FOLDER; or in Python "
            "plan, calibrate, apply_placement, export_onnx. Without its Keras model: quantize_static or NNCF.",
            tuple(op.name for op in file.weighted),
        )


def nothing_weighted(file: onnx.OnnxFile, _: targets.Target) -> Iterator[Symptom]:
    """A graph without convolutions and matrix products."""
    if len(file.model.graph) and not file.weighted:
        yield Symptom(
            Severity.NOTE,
            "there is no convolution and no matrix product with stored weights",
            "INT8 gains next to nothing",
            "Check that this is the file you mean.",
        )


def float_kernels(file: onnx.OnnxFile, target: targets.Target) -> Iterator[Symptom]:
    """Kernels in float in a quantized file, although the target wants them in integers."""
    names_by_lack: dict[str, list[str]] = {}
    for op in file.weighted if file.quantized else ():
        rule = target.rule(op.kind)
        if op.integer or not rule.weights:
            continue
        inputs = rule.inputs is targets.Inputs.NONE or all(op.input_pairs)
        lacks = [what for what, paired in (("input", inputs), ("weights", op.kernel_pair)) if not paired]
        if lacks:
            names_by_lack.setdefault(" and ".join(lacks), []).append(op.name)
    for lack, names in names_by_lack.items():
        yield Symptom(
            Severity.WARNING,
            f"convolutions or matrix products run in float: no Q/DQ pair on their {lack}",
            "they are as slow as before, with a conversion on each side",
            f"If that wasn't meant: keras-qat: --target TARGET ({_DOCS}). quantize_static: check "
            "nodes_to_exclude and op_types_to_quantize. NNCF: ignored_scope.",
            tuple(names),
        )


def float_output(file: onnx.OnnxFile, target: targets.Target) -> Iterator[Symptom]:
    """Kernels whose result isn't quantized, where the engine has none that reads integers and writes float.

    Source: qdq_selector_action_transformer.cc and relu_quantizelinear.cc in onnxruntime/core/optimizer/qdq_transformer,
    https://github.com/microsoft/onnxruntime.
    """
    bare: list[str] = []
    parted: list[str] = []
    for op in file.weighted:
        if op.integer or not target.rule(op.kind).output or not op.quantized:
            continue
        output, activation = onnx.fused_output(op.node)
        quantizers = onnx.quantizers(output)
        if quantizers is None:
            bare.append(op.name)
        elif activation is not None and target.limits.relu_wants_lowest and not all(map(_at_lowest, quantizers)):
            parted.append(op.name)
    remedy = f"keras-qat: --target {target.name}. quantize_static: "
    if bare:
        yield Symptom(
            Severity.WARNING,
            "kernels read integers but their output has no Q/DQ pair",
            f"{target.title} runs them in float",
            remedy + "quantize the output too, by leaving op_types_to_quantize at its default.",
            tuple(bare),
        )
    if parted:
        yield Symptom(
            Severity.WARNING,
            "a ReLU between kernel and QuantizeLinear stays, since the zero-point is not the lowest integer",
            f"{target.title} runs the kernel in float",
            remedy + "activation_type=QuantType.QUInt8, and no ActivationSymmetric.",
            tuple(parted),
        )


def float_bias(file: onnx.OnnxFile, target: targets.Target) -> Iterator[Symptom]:
    """A Gemm with quantized weights, a float bias and a float output, where the integer Gemm wants an int32 bias.

    Source: `int32_dense_bias` of the target's table. With a quantized output ONNX Runtime quantizes the bias itself.
    """
    if not target.int32_dense_bias:
        return
    gemms = [op for op in file.weighted if op.node.op_type == "Gemm" and op.quantized and op.quantizers is None]
    names = [op.name for op in gemms if not all(map(_is_int32, op.node.inputs[2:]))]
    if names:
        yield Symptom(
            Severity.WARNING,
            "the bias of a Gemm is float, and its output too",
            f"{target.title} runs the Gemm in float",
            f"keras-qat: --target {target.name}. quantize_static: leave QuantizeBias at True.",
            tuple(names),
        )


def per_tensor_weights(file: onnx.OnnxFile, _: targets.Target) -> Iterator[Symptom]:
    """One scale for a whole convolution kernel.

    Source: https://arxiv.org/abs/1806.08342, section 3.1: per-channel weights are needed for accuracy.
    """
    convolutions = [op for op in file.operations if op.kind is OpKind.CONV]
    names = [op.name for op in convolutions if _scale_count(op) == 1 and _channel_count(op) > 1]
    if names:
        yield Symptom(
            Severity.WARNING,
            "the weights of convolutions have one scale for all channels",
            "channels with small weights keep few steps: accuracy falls, most of all in depthwise convolutions",
            "keras-qat always has one scale a channel. quantize_static: per_channel=True.",
            tuple(names),
        )


def float_weights(file: onnx.OnnxFile, _: targets.Target) -> Iterator[Symptom]:
    """Weights stored in float before a QuantizeLinear."""
    quantizers = file.nodes("QuantizeLinear")
    names = [onnx.name_of(node) for node in quantizers if onnx.constant_tensor(onnx.input_at(node, 0)) is not None]
    if names:
        yield Symptom(
            Severity.NOTE,
            "weights are stored in float before a QuantizeLinear",
            "the file is up to four times as large; engines quantize them when they load it",
            "keras-qat stores int8. quantize_static: leave out AddQDQPairToWeight.",
            tuple(names),
        )


def _at_lowest(quantize: ir.Node) -> bool:
    """Whether the zero-point is the lowest integer of its type; a node without one has uint8 0."""
    z = onnx.constant_array(onnx.input_at(quantize, 2))
    return z is None or bool(np.all(z == ir.DataType.from_numpy(z.dtype).min))


def _is_int32(bias: ir.Value | None) -> bool:
    """Whether a bias is int32 behind a DequantizeLinear, or left out."""
    stored = onnx.constant_tensor(onnx.before_pair(bias))
    return bias is None or (stored is not None and stored.dtype is ir.DataType.INT32)


def _scale_count(op: onnx.Operation) -> int:
    """The number of scales of a quantized kernel, 0 if there are none."""
    node, index = (op.node, 4) if op.node.op_type == "QLinearConv" else (op.kernel_pair, 1)
    scales = None if node is None else onnx.constant_array(onnx.input_at(node, index))
    return 0 if scales is None else scales.size


def _channel_count(op: onnx.Operation) -> int:
    """The number of output channels, 0 if the kernel's shape is unknown."""
    kernel = onnx.constant_tensor(onnx.before_pair(op.kernel))
    shape = () if kernel is None else kernel.shape.numpy()
    return int(shape[0]) if shape else 0
