"""Residual additions, other operations between the kernels, and strides: what each target's table wants of them."""

from collections.abc import Iterator

import onnx_ir as ir

from keras_qat.doctor.findings import Severity, Symptom
from keras_qat.onnx import (
    WEIGHTED,
    OnnxFile,
    Operation,
    conv_branch,
    from_stored,
    fused_output,
    input_at,
    name_of,
    pair_above,
    quantizers,
    readers,
)
from keras_qat.targets import Engine, Inputs
from keras_qat.types import OpKind


def float_add(file: OnnxFile, engine: Engine) -> Iterator[Symptom]:
    """Additions that lack pairs which the target's table asks for.

    Source: the rule of `add` in docs/targets.md, with its own sources.
    """
    rule = engine.target.rule(OpKind.ADD)
    adds = [op for op in file.operations if op.kind is OpKind.ADD and file.quantized and _joins_quantized(op)]
    names = [op.name for op in adds if not _as_wanted(op, rule.inputs, output=rule.output)]
    if names and rule.inputs is not Inputs.NONE:
        wanted = {
            Inputs.ALL: "a Q/DQ pair on each input" + (" and on the output" if rule.output else ""),
            Inputs.ALL_BUT_FUSED_CONV: "Q/DQ pairs on all inputs but one convolution's",
        }[rule.inputs]
        yield Symptom(
            Severity.WARNING,
            f"residual Adds lack pairs: {engine.limits.title} wants {wanted}",
            "the Adds run in float, and so do conversions on each side",
            f"keras-qat: --target {engine.name}. quantize_static: 'Add' in op_types_to_quantize, as by default.",
            tuple(names),
        )


def quantized_branch(file: OnnxFile, engine: Engine) -> Iterator[Symptom]:
    """Additions whose convolution branch has a pair of its own, where the engine would add inside the convolution.

    Source: https://docs.nvidia.com/deeplearning/tensorrt/tensorflow-quantization-toolkit/docs/docs/
    add_custom_qdq_cases.html; OpenVINO was as fast with both (benchmarks/deploy.py).
    """
    if engine.target.rule(OpKind.ADD).inputs is not Inputs.ALL_BUT_FUSED_CONV:
        return
    names = [
        op.name
        for op in file.operations
        if op.kind is OpKind.ADD and all(pair_above(v) for v in op.inputs) and any(map(conv_branch, op.inputs))
    ]
    if names:
        costs = engine.limits.branch_costs
        yield Symptom(
            Severity.WARNING if costs else Severity.NOTE,
            "residual Adds have a Q/DQ pair on their convolution's branch too",
            f"{engine.limits.title} can't add inside that convolution's kernel: one more pass over the tensor, and one "
            "more rounding"
            if costs
            else "one more rounding; it is about as fast",
            f"Leave the convolution's branch alone: keras-qat: --target {engine.name}.",
            tuple(names),
        )


def float_between(file: OnnxFile, engine: Engine) -> Iterator[Symptom]:
    """Poolings, concatenations, products and batch norms in float, of which the table wants otherwise."""
    found: dict[OpKind, list[str]] = {}
    for op in file.operations if file.quantized else ():
        rule = engine.target.rule(op.kind)
        if op.kind in WEIGHTED or op.kind is OpKind.ADD or rule.inputs is Inputs.NONE or not _joins_quantized(op):
            continue
        if not _as_wanted(op, rule.inputs, output=rule.output):
            found.setdefault(op.kind, []).append(op.name)
    for kind, names in found.items():
        yield Symptom(
            Severity.NOTE,
            f"operations of kind {kind!s} run in float between quantized ones",
            "a conversion on each side",
            "Nothing, where they are part of an activation such as hard-swish, or were left in float on purpose. Else "
            "keras-qat: --target TARGET. quantize_static: their type in op_types_to_quantize.",
            tuple(names),
        )


def strided_pointwise(file: OnnxFile, engine: Engine) -> Iterator[Symptom]:
    """Strided 1x1 convolutions that OpenVINO runs in float: it moves their stride above the dequantization.

    Source: `StridesOptimization` in OpenVINO's common transformations; measured in docs/architecture.md.
    """
    if not engine.target.pools_strides:
        return
    found: dict[str, None] = {}
    for node in file.nodes("DequantizeLinear"):
        value = input_at(node, 0)
        below = [] if value is None or from_stored(value) else list(readers(node.outputs[0]))
        strides = [_pointwise_stride(reader) for reader in below]
        if strides and strides[0] is not None and all(stride == strides[0] for stride in strides):
            found.update((name_of(reader), None) for reader in below if reader is not None)
    names = tuple(found)
    if names:
        yield Symptom(
            Severity.WARNING,
            "strided 1x1 convolutions alone read a quantized tensor",
            f"{engine.limits.title} moves the stride above the dequantization and runs them in float",
            f"keras-qat: --target {engine.name} takes the stride out into a max-pool of single pixels. NNCF on the "
            "OpenVINO model (not on ONNX) has not this problem.",
            names,
        )


def _joins_quantized(op: Operation) -> bool:
    """Whether quantized tensors meet here: a pair above or below, so that float costs a conversion."""
    return any(pair_above(value) for value in op.inputs) or quantizers(fused_output(op.node)[0]) is not None


def _as_wanted(op: Operation, inputs: Inputs, *, output: bool) -> bool:
    bare = [value for value in op.inputs if pair_above(value) is None]
    allowed = not bare or (inputs is Inputs.ALL_BUT_FUSED_CONV and len(bare) == 1 and conv_branch(bare[0]))
    return allowed and (not output or quantizers(fused_output(op.node)[0]) is not None)


def _pointwise_stride(node: ir.Node | None) -> tuple[int, ...] | None:
    """The stride of a 1x1 convolution; `None` for one without, and for any other node."""
    if node is None or node.op_type != "Conv" or "strides" not in node.attributes:
        return None
    strides, shape = tuple(node.attributes["strides"].as_ints()), node.attributes.get("kernel_shape")
    sizes = shape.as_ints() if shape is not None else _kernel_size(node)
    return strides if set(sizes) == {1} and set(strides) != {1} else None


def _kernel_size(node: ir.Node) -> tuple[int, ...]:
    kernel = input_at(node, 1)
    pair = None if kernel is None else pair_above(kernel)
    stored = kernel if pair is None else input_at(pair, 0)
    if stored is None or stored.const_value is None:
        return (0,)
    return tuple(int(size) for size in stored.const_value.shape.numpy()[2:])
