"""Checks of residual additions, of other operations between the kernels, and of strides, by the target's table."""

from collections.abc import Iterator

import onnx_ir as ir

from keras_qat import onnx
from keras_qat.doctor.findings import Severity, Symptom
from keras_qat.targets import Inputs, OpRule, Target
from keras_qat.types import OpKind


def float_add(file: onnx.OnnxFile, target: Target) -> Iterator[Symptom]:
    """Additions without the pairs that the target's table asks for.

    Source: the rule of `add` in docs/targets.md, with its own sources.
    """
    rule = target.rule(OpKind.ADD)
    adds = [op for op in file.operations if op.kind is OpKind.ADD and file.quantized and _meets_quantized(op)]
    names = [op.name for op in adds if not _fulfils(op, rule)]
    if names and rule.inputs is not Inputs.NONE:
        wanted = {
            Inputs.ALL: "a Q/DQ pair on each input" + (" and on the output" if rule.output else ""),
            Inputs.ALL_BUT_FUSED_CONV: "Q/DQ pairs on all inputs but one convolution's",
        }[rule.inputs]
        yield Symptom(
            Severity.WARNING,
            f"residual Adds lack pairs: {target.title} wants {wanted}",
            "the Adds run in float, and so do conversions on each side",
            f"keras-qat: --target {target.name}. quantize_static: 'Add' in op_types_to_quantize, as by default.",
            tuple(names),
        )


def quantized_branch(file: onnx.OnnxFile, target: Target) -> Iterator[Symptom]:
    """Additions whose convolution branch has its own pair, where the engine could add inside the convolution.

    Source: https://docs.nvidia.com/deeplearning/tensorrt/tensorflow-quantization-toolkit/docs/docs/
    add_custom_qdq_cases.html; OpenVINO was as fast with both (benchmarks/deploy.py).
    """
    if target.rule(OpKind.ADD).inputs is not Inputs.ALL_BUT_FUSED_CONV:
        return
    adds = [op for op in file.operations if op.kind is OpKind.ADD and all(op.input_pairs)]
    names = [op.name for op in adds if any(map(onnx.is_unshared, op.inputs))]
    if names:
        costs = target.limits.branch_costs
        yield Symptom(
            Severity.WARNING if costs else Severity.NOTE,
            "residual Adds have a Q/DQ pair on their convolution's branch too",
            f"{target.title} can't add inside that convolution's kernel: one more pass over the tensor, and one "
            "more rounding"
            if costs
            else "one more rounding; it is about as fast",
            f"Leave the convolution's branch alone: keras-qat: --target {target.name}.",
            tuple(names),
        )


def float_between(file: onnx.OnnxFile, target: Target) -> Iterator[Symptom]:
    """Poolings, concatenations, products and batch norms in float, where the target's table wants integers."""
    names_by_kind: dict[OpKind, list[str]] = {}
    for op in file.operations if file.quantized else ():
        rule = target.rule(op.kind)
        if op.weighted or op.kind is OpKind.ADD or rule.inputs is Inputs.NONE or not _meets_quantized(op):
            continue
        if not _fulfils(op, rule):
            names_by_kind.setdefault(op.kind, []).append(op.name)
    for kind, names in names_by_kind.items():
        yield Symptom(
            Severity.NOTE,
            f"operations of kind {kind!s} run in float between quantized ones",
            "a conversion on each side",
            "Nothing, where they are part of an activation such as hard-swish, or were left in float on purpose. Else "
            "keras-qat: --target TARGET. quantize_static: their type in op_types_to_quantize.",
            tuple(names),
        )


def strided_pointwise(file: onnx.OnnxFile, target: Target) -> Iterator[Symptom]:
    """Strided 1x1 convolutions that OpenVINO runs in float, since it moves their stride above the dequantization.

    Source: `StridesOptimization` in OpenVINO's common transformations; measured in docs/architecture.md.
    """
    if not target.pools_strides:
        return
    names: dict[str, None] = {}
    for node in file.nodes("DequantizeLinear"):
        value = onnx.input_at(node, 0)
        below = [] if value is None or onnx.is_constant(value) else list(onnx.consumers(node.outputs[0]))
        strides = [_pointwise_stride(consumer) for consumer in below]
        if strides and strides[0] is not None and all(stride == strides[0] for stride in strides):
            names.update((onnx.name_of(consumer), None) for consumer in below if consumer is not None)
    if names:
        yield Symptom(
            Severity.WARNING,
            "strided 1x1 convolutions alone read a quantized tensor",
            f"{target.title} moves the stride above the dequantization and runs them in float",
            f"keras-qat: --target {target.name} takes the stride out into a max-pool of single pixels. NNCF on the "
            "OpenVINO model (not on ONNX) does not have this problem.",
            tuple(names),
        )


def _meets_quantized(op: onnx.Operation) -> bool:
    """Whether an input or the output of an operation has a pair, so that float costs a conversion."""
    return any(op.input_pairs) or op.quantizers is not None


def _fulfils(op: onnx.Operation, rule: OpRule) -> bool:
    """Whether an operation has the pairs that its rule asks for."""
    bare = [value for value, pair in zip(op.inputs, op.input_pairs, strict=True) if pair is None]
    fused = rule.inputs is Inputs.ALL_BUT_FUSED_CONV and len(bare) == 1 and onnx.is_unshared(bare[0])
    return (not bare or fused) and (not rule.output or op.quantizers is not None)


def _pointwise_stride(node: ir.Node | None) -> tuple[int, ...] | None:
    """The stride of a 1x1 convolution; `None` if it has none, or the node is another."""
    if node is None or node.op_type != "Conv" or "strides" not in node.attributes:
        return None
    strides, shape = tuple(node.attributes["strides"].as_ints()), node.attributes.get("kernel_shape")
    sizes = shape.as_ints() if shape is not None else _kernel_size(node)
    return strides if set(sizes) == {1} and set(strides) != {1} else None


def _kernel_size(conv: ir.Node) -> tuple[int, ...]:
    kernel = onnx.constant_tensor(onnx.before_pair(onnx.input_at(conv, 1)))
    return (0,) if kernel is None else tuple(int(size) for size in kernel.shape.numpy()[2:])
