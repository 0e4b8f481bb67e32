"""Convolutions and matrix products: which run in integers, and which should but can't."""

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from keras_qat.doctor.findings import Severity, Symptom
from keras_qat.onnx import (
    WEIGHTED,
    OnnxFile,
    Operation,
    fused_output,
    input_at,
    name_of,
    numbers,
    pair_above,
    quantizers,
    stored_tensor,
)
from keras_qat.targets import Engine, Inputs
from keras_qat.types import OpKind

_DOCS = "docs/overrides.md says how to leave a layer in float on purpose"


def float_file(file: OnnxFile, _: Engine) -> Iterator[Symptom]:
    """A file in which nothing is quantized."""
    weighted = [op.name for op in file.operations if op.kind in WEIGHTED]
    if weighted and not file.quantized:
        yield Symptom(
            Severity.WARNING,
            "the file is float: nothing in it is quantized",
            "four times the size of INT8, and on CPUs with VNNI about three times the time (ResNet50)",
            "Quantize the Keras model: keras-qat run --model MODEL --target TARGET --data FOLDER; or in Python "
            "plan, calibrate, apply_placement, export_onnx. Without its Keras model: quantize_static or NNCF.",
            tuple(weighted),
        )


def nothing_weighted(file: OnnxFile, _: Engine) -> Iterator[Symptom]:
    """A graph without convolutions and matrix products."""
    if len(file.model.graph) and not any(op.kind in WEIGHTED for op in file.operations):
        yield Symptom(
            Severity.NOTE,
            "there is no convolution and no matrix product with stored weights",
            "INT8 gains next to nothing",
            "Check that this is the file you mean.",
        )


def integer_kernel(op: Operation) -> bool:
    """Whether input and weights of a weighted operation are quantized."""
    return op.integer or (_paired(op.kernel) and all(pair_above(value) is not None for value in op.inputs))


def float_kernels(file: OnnxFile, engine: Engine) -> Iterator[Symptom]:
    """Kernels in float in a quantized file, though the target wants them in integers."""
    found: dict[str, list[str]] = {}
    for op in file.operations if file.quantized else ():
        rule = engine.target.rule(op.kind)
        if op.kind not in WEIGHTED or op.integer or not rule.weights:
            continue
        inputs = rule.inputs is Inputs.NONE or all(pair_above(value) is not None for value in op.inputs)
        missing = [what for what, ok in (("input", inputs), ("weights", _paired(op.kernel))) if not ok]
        if missing:
            found.setdefault(" and ".join(missing), []).append(op.name)
    for lacking, names in found.items():
        yield Symptom(
            Severity.WARNING,
            f"convolutions or matrix products run in float: no Q/DQ pair on their {lacking}",
            "they are as slow as before, with a conversion on each side",
            f"If that wasn't meant: keras-qat: --target TARGET ({_DOCS}). quantize_static: check "
            "nodes_to_exclude and op_types_to_quantize. NNCF: ignored_scope.",
            tuple(names),
        )


def float_output(file: OnnxFile, engine: Engine) -> Iterator[Symptom]:
    """Kernels whose result isn't quantized, where the engine has none that reads integers and writes float.

    Source: qdq_selector_action_transformer.cc and relu_quantizelinear.cc in onnxruntime/core/optimizer/qdq_transformer,
    https://github.com/microsoft/onnxruntime.
    """
    bare: list[str] = []
    parted: list[str] = []
    for op in file.operations:
        if op.kind not in WEIGHTED or op.integer or not engine.target.rule(op.kind).output or not integer_kernel(op):
            continue
        output, activation = fused_output(op.node)
        found = quantizers(output)
        if found is None:
            bare.append(op.name)
        elif activation is not None and engine.limits.relu_wants_lowest and not all(map(_at_lowest, found)):
            parted.append(op.name)
    remedy = f"keras-qat: --target {engine.name}. quantize_static: "
    if bare:
        yield Symptom(
            Severity.WARNING,
            "kernels read integers but their output has no Q/DQ pair",
            f"{engine.limits.title} runs them in float",
            remedy + "quantize the output too, by leaving op_types_to_quantize at its default.",
            tuple(bare),
        )
    if parted:
        yield Symptom(
            Severity.WARNING,
            "a ReLU between kernel and QuantizeLinear stays, since the zero-point is not the lowest integer",
            f"{engine.limits.title} runs the kernel in float",
            remedy + "activation_type=QuantType.QUInt8, and no ActivationSymmetric.",
            tuple(parted),
        )


def float_bias(file: OnnxFile, engine: Engine) -> Iterator[Symptom]:
    """A Gemm with quantized weights, a float bias and a float output, where the integer Gemm wants an int32 bias.

    Source: `int32_dense_bias` of the target's table. With a quantized output ONNX Runtime quantizes the bias itself.
    """
    if not engine.target.int32_dense_bias:
        return
    names = [
        op.name
        for op in file.operations
        if op.node.op_type == "Gemm"
        and integer_kernel(op)
        and not all(map(_int32, op.node.inputs[2:]))
        and quantizers(fused_output(op.node)[0]) is None
    ]
    if names:
        yield Symptom(
            Severity.WARNING,
            "the bias of a Gemm is float, and its output too",
            f"{engine.limits.title} runs the Gemm in float",
            f"keras-qat: --target {engine.name}. quantize_static: leave QuantizeBias at True.",
            tuple(names),
        )


def tensor_wide_weights(file: OnnxFile, _: Engine) -> Iterator[Symptom]:
    """One scale for a whole convolution kernel.

    Source: https://arxiv.org/abs/1806.08342, section 3.1: per-channel weights are needed for accuracy.
    """
    names = [op.name for op in file.operations if op.kind is OpKind.CONV and _scales(op) == 1 and _channels(op) > 1]
    if names:
        yield Symptom(
            Severity.WARNING,
            "the weights of convolutions have one scale for all channels",
            "channels with small weights keep few steps: accuracy falls, most of all in depthwise convolutions",
            "keras-qat always has one scale a channel. quantize_static: per_channel=True.",
            tuple(names),
        )


def float_weights(file: OnnxFile, _: Engine) -> Iterator[Symptom]:
    """Weights stored in float before a QuantizeLinear."""
    stored = [(node, stored_tensor(input_at(node, 0))) for node in file.nodes("QuantizeLinear")]
    names = [name_of(node) for node, tensor in stored if tensor is not None]
    if names:
        yield Symptom(
            Severity.NOTE,
            "weights are stored in float before a QuantizeLinear",
            "the file is up to four times as large; engines quantize them when they load it",
            "keras-qat stores int8. quantize_static: leave out AddQDQPairToWeight.",
            tuple(names),
        )


def _paired(kernel: ir.Value | None) -> bool:
    return kernel is not None and pair_above(kernel) is not None


def _at_lowest(quantize: ir.Node) -> bool:
    z = numbers(input_at(quantize, 2))
    return z is None or bool(np.all(z == ir.DataType.from_numpy(z.dtype).min))  # Without one: uint8 around 0.


def _int32(bias: ir.Value | None) -> bool:
    pair = None if bias is None else pair_above(bias)
    stored = None if pair is None else stored_tensor(input_at(pair, 0))
    return bias is None or (stored is not None and stored.dtype is ir.DataType.INT32)


def _scales(op: Operation) -> int:
    """How many scales the kernel of a quantized convolution has; 0 if it has none."""
    pair = None if op.kernel is None else pair_above(op.kernel)
    value = input_at(op.node, 4) if op.node.op_type == "QLinearConv" else None if pair is None else input_at(pair, 1)
    found = numbers(value)
    return 0 if found is None else found.size


def _channels(op: Operation) -> int:
    """Output channels, where the kernel's shape is known; else 0."""
    pair = None if op.kernel is None else pair_above(op.kernel)
    tensor = stored_tensor(op.kernel if pair is None else input_at(pair, 0))
    shape = () if tensor is None else tensor.shape.numpy()
    return int(shape[0]) if shape else 0
