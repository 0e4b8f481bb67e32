"""Where Q/DQ pairs stand: half ones, and such as part what belongs together.

The scales of Q/DQ pairs, and whether the two halves of a pair agree.
"""

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from keras_qat.doctor.findings import Severity, Symptom
from keras_qat.onnx import (
    ACTIVATIONS,
    CONVOLUTIONS,
    INTEGER,
    PAIR,
    OnnxFile,
    from_stored,
    fused_output,
    input_at,
    made_by,
    moves,
    name_of,
    numbers,
    pair_above,
    quantizers,
    readers,
)
from keras_qat.targets import Engine
from keras_qat.types import OpKind


def half_pair(file: OnnxFile, _: Engine) -> Iterator[Symptom]:
    """A QuantizeLinear that no DequantizeLinear reads, or the other way round."""
    lonely = [name_of(node) for node in file.nodes("QuantizeLinear") if not _read_as_integers(node.outputs[0])]
    lonely += [name_of(node) for node in file.nodes("DequantizeLinear") if not _integers(input_at(node, 0))]
    if lonely:
        yield Symptom(
            Severity.WARNING,
            "one half of a Q/DQ pair is missing",
            "engines that fuse pairs leave it in the graph, or refuse it",
            "Look at these nodes in Netron; a pass that removed one half must remove both.",
            tuple(lonely),
        )


def parted_activation(file: OnnxFile, engine: Engine) -> Iterator[Symptom]:
    """A pair between a convolution or Add and its ReLU, which engines run inside the kernel.

    Source: `fused_activations` of the target's table; "Q/DQ Layer-Placement Recommendations",
    https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/work-quantized-types.html.
    """
    names = [name_of(node) for node in file.nodes(*ACTIVATIONS) if _behind_pair(node, CONVOLUTIONS | {"Add", "Gemm"})]
    if names and OpKind.RELU in engine.target.fused_activations:
        yield Symptom(
            Severity.WARNING,
            "a Q/DQ pair stands between a kernel and its ReLU or Clip",
            "the two can't run as one, and the tensor is rounded twice",
            "Quantize behind the activation only. keras-qat does. quantize_static keeps the pair if activations are "
            "symmetric: use activation_type=QuantType.QUInt8, or, for TensorRT, keras-qat or NVIDIA's ModelOpt.",
            tuple(names),
        )


def unfused_batch_norm(file: OnnxFile, _: Engine) -> Iterator[Symptom]:
    """A batch norm behind a convolution that nobody else reads.

    Engines fold it into float weights. With quantized weights, or a pair in between, it stays a layer in float.
    """
    names = []
    for node in file.nodes("BatchNormalization"):
        value = input_at(node, 0)
        above = None if value is None else made_by(value)
        if above is not None and above.op_type in CONVOLUTIONS and len(list(readers(above.outputs[0]))) == 1:
            names.append(name_of(node))
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


def _behind_pair(node: ir.Node, makers: frozenset[str]) -> bool:
    value = input_at(node, 0)
    above = None if value is None else value.producer()
    if above is None or above.op_type != "DequantizeLinear" or value is None:
        return False
    integers = input_at(above, 0)
    if len(list(readers(above.outputs[0]))) > 1 or (integers is not None and len(integers.uses()) > 1):
        return False  # Others read the tensor before the activation, so that it must exist.
    maker = made_by(value)
    return maker is not None and maker.op_type in makers and len(list(readers(maker.outputs[0]))) == 1


def _read_as_integers(value: ir.Value) -> bool:
    if value.is_graph_output():
        return True
    nodes = [use.node for use in value.uses()]
    return any(
        node.op_type == "DequantizeLinear"
        or _computes_in_integers(node)
        or (_keeps_integers(node) and any(map(_read_as_integers, node.outputs[:1])))
        for node in nodes
    )


def _integers(value: ir.Value | None) -> bool:
    """Whether integers come in: stored, read, quantized, or computed by an operator in integers."""
    if value is None or from_stored(value):
        return value is not None
    node = value.producer()
    if node is None or node.op_type in {"QuantizeLinear", "DynamicQuantizeLinear"} or _computes_in_integers(node):
        return True
    return _keeps_integers(node) and _integers(input_at(node, 0))


def _keeps_integers(node: ir.Node) -> bool:
    return moves(node) or node.op_type in {"MaxPool", "Concat"}


def _computes_in_integers(node: ir.Node) -> bool:
    return node.op_type in INTEGER or node.op_type.startswith("QLinear")


def bad_scale(file: OnnxFile, _: Engine) -> Iterator[Symptom]:
    """Scales that are 0, negative, NaN or infinite."""
    names = [name for name, s in _scales(file) if not np.all(np.isfinite(s) & (s > 0))]
    if names:
        yield Symptom(
            Severity.ERROR,
            "scales are 0, negative, NaN or infinite",
            "a division by them gives no numbers; TensorRT refuses them",
            "Calibrate again on real images; a tensor that is always 0 needs any positive scale, such as 1.",
            tuple(names),
        )


def tiny_scale(file: OnnxFile, _: Engine) -> Iterator[Symptom]:
    """Scales below the smallest normal number of their type, which many kernels round to 0."""
    tiny = [name for name, s in _scales(file) if np.any((s > 0) & (s < np.finfo(s.dtype).tiny))]
    if tiny:
        yield Symptom(
            Severity.WARNING,
            "scales are subnormal numbers",
            "kernels that flush these to 0 divide by 0",
            "Give channels whose weights are all about 0 the scale 1: their integers are 0 in any case.",
            tuple(tiny),
        )


def unlike_halves(file: OnnxFile, _: Engine) -> Iterator[Symptom]:
    """A DequantizeLinear with another scale or zero-point than its QuantizeLinear."""
    names = []
    for node in file.nodes("DequantizeLinear"):
        value = input_at(node, 0)
        above = None if value is None else value.producer()
        if above is not None and above.op_type == "QuantizeLinear" and not _alike(node, above):
            names.append(name_of(node))
    if names:
        yield Symptom(
            Severity.WARNING,
            "the two halves of a Q/DQ pair differ in scale or zero-point",
            "the pair shifts or stretches what passes, and engines can't fuse it",
            "Give both nodes the same two tensors; a tool that rewrote one scale must rewrite the other.",
            tuple(names),
        )


def unequal_scales(file: OnnxFile, engine: Engine) -> Iterator[Symptom]:
    """Operations that move integers, between tensors of different scales.

    Source: `shares_range` of the target's table, docs/targets.md.
    """
    names = []
    for op in file.operations:
        after = quantizers(fused_output(op.node)[0])
        if op.kind not in engine.target.shares_range or not after:
            continue
        before = [pair for value in op.inputs if (pair := pair_above(value)) is not None]
        if not all(_alike(node, after[0]) for node in before):
            names.append(op.name)
    if names:
        yield Symptom(
            Severity.WARNING,
            "poolings or concatenations read and write different scales",
            "the integers must be computed anew there, instead of being moved",
            "keras-qat: --target TARGET joins their ranges. quantize_static joins those of max-pools; NNCF "
            "those of concatenations.",
            tuple(names),
        )


def _scales(file: OnnxFile) -> Iterator[tuple[str, np.ndarray]]:
    for node in file.nodes(*PAIR):
        scale = numbers(input_at(node, 1))
        if scale is not None and scale.dtype.kind == "f":
            yield name_of(node), scale


def _alike(a: ir.Node, b: ir.Node) -> bool:
    """Whether two nodes have the same scale and zero-point, as far as these are stored."""
    pairs = zip(a.inputs[1:3], b.inputs[1:3], strict=False)
    arrays = ((numbers(one), numbers(other)) for one, other in pairs)
    return all(one is None or other is None or np.array_equal(one, other, equal_nan=False) for one, other in arrays)
