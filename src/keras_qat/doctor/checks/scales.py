"""The scales of Q/DQ pairs, and whether the two halves of a pair agree."""

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from keras_qat.doctor.constants import numbers
from keras_qat.doctor.engines import Engine
from keras_qat.doctor.finding import Severity, Symptom
from keras_qat.doctor.flow import fused_output, pair_above, quantizers
from keras_qat.doctor.node_inputs import input_at
from keras_qat.doctor.onnx_file import OnnxFile
from keras_qat.doctor.operations import PAIR, name_of


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
