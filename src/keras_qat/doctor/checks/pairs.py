"""Where Q/DQ pairs stand: half ones, and such as part what belongs together."""

from collections.abc import Iterator

import onnx_ir as ir

from keras_qat.doctor.engines import Engine
from keras_qat.doctor.finding import Severity, Symptom
from keras_qat.doctor.flow import made_by, readers
from keras_qat.doctor.node_inputs import input_at
from keras_qat.doctor.onnx_file import OnnxFile
from keras_qat.doctor.operations import ACTIVATIONS, CONVOLUTIONS, INTEGER, from_stored, moves, name_of
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
