"""Versions: too old for what the file holds, too new for the engine."""

from collections.abc import Iterator

import numpy as np

from keras_qat.doctor.constants import numbers, stored_tensor
from keras_qat.doctor.engines import Engine
from keras_qat.doctor.finding import Severity, Symptom
from keras_qat.doctor.node_inputs import input_at
from keras_qat.doctor.onnx_file import OnnxFile
from keras_qat.doctor.operations import PAIR, name_of

_PAIRS, _CHANNELS, _HALF = 10, 13, 19
"""The opsets that brought QuantizeLinear, a scale for each channel, and scales in FP16.

Source: https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html, its versions 10, 13 and 19.
"""

_WIDELY_READ = 21
"""The newest opset that keras-qat writes."""


def opset_of(file: OnnxFile) -> int | None:
    """The version of ONNX's own operators that a file is written in."""
    return file.model.graph.opset_imports.get("")


def old_opset(file: OnnxFile, _: Engine) -> Iterator[Symptom]:
    """Q/DQ nodes that say what their opset didn't have yet."""
    opset = opset_of(file)
    if opset is None:
        return
    found: dict[int, list[str]] = {}
    for node in file.nodes(*PAIR):
        scale = numbers(input_at(node, 1))
        needed = _PAIRS
        if scale is not None and scale.size > 1:
            needed = _CHANNELS
        if scale is not None and scale.dtype == np.float16:
            needed = _HALF
        if opset < needed:
            found.setdefault(needed, []).append(name_of(node))
    for needed, names in found.items():
        yield Symptom(
            Severity.ERROR,
            f"opset {opset} doesn't have these Q/DQ nodes; they came with opset {needed}",
            "engines refuse the file or read it wrongly",
            f"Export with opset {needed} or later: keras-qat export --opset; torch.onnx.export(opset_version=…); "
            "tf2onnx --opset.",
            tuple(names),
        )


def new_opset(file: OnnxFile, engine: Engine) -> Iterator[Symptom]:
    """A version that the engine wasn't seen to read, or that its releases of the last years don't."""
    opset, newest, ir = opset_of(file) or 0, engine.limits.newest_opset, engine.limits.newest_ir
    if newest is not None and opset > newest:
        yield Symptom(
            Severity.WARNING,
            f"opset {opset} is newer than {newest}, the newest that was tried",
            f"{engine.limits.title} may refuse the file",
            "Export with an older opset, such as 17: keras-qat's default.",
        )
    elif opset > _WIDELY_READ:
        yield Symptom(
            Severity.NOTE,
            f"opset {opset} is newer than {_WIDELY_READ}",
            "engines of before 2025 don't read it",
            "Export with opset 17, if it must run there.",
        )
    if ir is not None and file.model.ir_version > ir:
        yield Symptom(
            Severity.ERROR,
            f"IR version {file.model.ir_version} is newer than {ir}",
            f"{engine.limits.title} 1.32 refuses the file",
            f"Set model.ir_version = {ir} (8 for opset 17) and save it again.",
        )


def half_scales(file: OnnxFile, engine: Engine) -> Iterator[Symptom]:
    """FP16 Q/DQ files, which ONNX Runtime's CPU optimizer computes wrongly: docs/architecture.md, measured."""
    tensors = [(node, stored_tensor(input_at(node, 1))) for node in file.nodes(*PAIR)]
    half = [name_of(node) for node, scale in tensors if scale is not None and scale.dtype.name == "FLOAT16"]
    if half and engine.limits.half_wrong:
        yield Symptom(
            Severity.WARNING,
            "the scales are FP16",
            f"{engine.limits.title} computes such files wrongly on the CPU when it optimizes them, and says nothing",
            "Export with --precision fp32 for the CPU; or switch optimization off: graph_optimization_level = "
            "ORT_DISABLE_ALL, as keras-qat does.",
            tuple(half),
        )
