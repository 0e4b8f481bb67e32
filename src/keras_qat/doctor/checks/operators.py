"""Checks of the file as a whole: its graph and data, its operators, its versions, and the sizes of its inputs."""

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from keras_qat import onnx, targets
from keras_qat.doctor.findings import Severity, Symptom
from keras_qat.text import shortened

_AGAIN = "Export it again. If it was copied, copy what lies beside it too."

_QDQ = "write Q/DQ pairs instead: quantize_static(…, quant_format=QuantFormat.QDQ), or keras-qat"

_PAIRS, _CHANNELS, _HALF = 10, 13, 19
"""The opsets that brought QuantizeLinear, a scale for each channel, and scales in FP16.

Source: https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html, its versions 10, 13 and 19.
"""

_WIDELY_READ = 21
"""The newest opset that keras-qat writes."""


def empty_graph(file: onnx.OnnxFile, _: targets.Target) -> Iterator[Symptom]:
    """A graph without nodes, or without outputs."""
    graph = file.model.graph
    lack = next((what for what, there in (("nodes", len(graph)), ("outputs", len(graph.outputs))) if not there), None)
    if lack is not None:
        yield Symptom(Severity.ERROR, f"the graph has no {lack}", "it computes nothing", _AGAIN)


def missing_data(file: onnx.OnnxFile, _: targets.Target) -> Iterator[Symptom]:
    """External data that are missing: https://onnx.ai/onnx/repo-docs/ExternalData.html."""
    if file.missing_data:
        yield Symptom(
            Severity.ERROR,
            "the external data of these tensors are missing or cut short",
            "no engine can load the file",
            "Copy the data file to where the .onnx file lies, under its old name; or save all in one file: "
            "onnx.save_model(model, path, save_as_external_data=False).",
            file.missing_data,
        )


def invalid_model(file: onnx.OnnxFile, _: targets.Target) -> Iterator[Symptom]:
    """A file that ONNX's own checker refuses."""
    if file.missing_data or not len(file.model.graph):
        return
    refusal = file.refusal()
    if refusal is not None:
        problem = f"it is not valid ONNX: {shortened(refusal)}"
        yield Symptom(Severity.ERROR, problem, "engines refuse it or guess", _AGAIN)


def not_finite(file: onnx.OnnxFile, _: targets.Target) -> Iterator[Symptom]:
    """Weights that are NaN or infinite."""
    arrays = ((str(name), onnx.constant_array(value)) for name, value in file.model.graph.initializers.items())
    names = [name for name, x in arrays if x is not None and x.dtype.kind == "f" and not np.all(np.isfinite(x))]
    if names:
        yield Symptom(
            Severity.ERROR,
            "stored numbers are NaN or infinite",
            "everything that is computed from them becomes NaN",
            "Look for the epoch in which training diverged, and export an earlier one.",
            tuple(names),
        )


def unknown_operator(file: onnx.OnnxFile, target: targets.Target) -> Iterator[Symptom]:
    """Operators of a domain that the engine doesn't know, and that the file doesn't define as functions."""
    defined = {(function.domain, function.name) for function in file.model.functions.values()}
    foreign = (node for node in file.model.graph if node.domain not in target.limits.domains)
    nodes = [node for node in foreign if (node.domain, node.op_type) not in defined]
    if nodes:
        yield Symptom(
            Severity.ERROR,
            f"{_types(nodes)}: not operators of ONNX",
            "an engine that wasn't given a plugin for them refuses the file",
            "Export from the training framework without engine-specific optimization (an ONNX Runtime session's "
            f"optimized_model_filepath writes such files); if it is quantization, {_QDQ}.",
            tuple(map(onnx.name_of, nodes)),
        )


def refused_operator(file: onnx.OnnxFile, target: targets.Target) -> Iterator[Symptom]:
    """Operators in integers (QOperator format) that the engine doesn't run."""
    limits = target.limits
    nodes = [node for node in file.model.graph if node.domain in limits.domains and node.op_type in limits.refuses]
    if nodes:
        yield Symptom(
            Severity.ERROR,
            f"{_types(nodes)}: not supported",
            f"{target.title} refuses the file",
            f"{_QDQ[0].upper()}{_QDQ[1:]}.",
            tuple(map(onnx.name_of, nodes)),
        )


def dynamic_quantization(file: onnx.OnnxFile, _: targets.Target) -> Iterator[Symptom]:
    """Ranges that are measured at every run.

    Source: https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html, "Method selection".
    """
    nodes = file.nodes("DynamicQuantizeLinear")
    if nodes and any(op.integer for op in file.operations):
        yield Symptom(
            Severity.WARNING,
            "ranges are measured at each run (dynamic quantization)",
            "slow for convolutions, whose tensors are large",
            "Quantize statically, with calibration images: keras-qat, or quantize_static in place of quantize_dynamic.",
            tuple(map(onnx.name_of, nodes)),
        )


def old_opset(file: onnx.OnnxFile, _: targets.Target) -> Iterator[Symptom]:
    """Q/DQ nodes with properties that came with a later opset than the file's."""
    if file.opset is None:
        return
    names_by_opset: dict[int, list[str]] = {}
    for node in file.nodes(*onnx.PAIR):
        scale = onnx.constant_array(onnx.input_at(node, 1))
        needed = _PAIRS
        if scale is not None and scale.size > 1:
            needed = _CHANNELS
        if scale is not None and scale.dtype == np.float16:
            needed = _HALF
        if file.opset < needed:
            names_by_opset.setdefault(needed, []).append(onnx.name_of(node))
    for needed, names in names_by_opset.items():
        yield Symptom(
            Severity.ERROR,
            f"opset {file.opset} doesn't have these Q/DQ nodes; they came with opset {needed}",
            "engines refuse the file or read it wrongly",
            f"Export with opset {needed} or later: keras-qat export --opset; torch.onnx.export(opset_version=…); "
            "tf2onnx --opset.",
            tuple(names),
        )


def new_opset(file: onnx.OnnxFile, target: targets.Target) -> Iterator[Symptom]:
    """A version that the engine was not seen to read, or that its releases of the last years don't read."""
    opset, newest, newest_ir = file.opset or 0, target.limits.newest_opset, target.limits.newest_ir
    if newest is not None and opset > newest:
        yield Symptom(
            Severity.WARNING,
            f"opset {opset} is newer than {newest}, the newest that was tried",
            f"{target.title} may refuse the file",
            "Export with an older opset, such as 17: keras-qat's default.",
        )
    elif opset > _WIDELY_READ:
        yield Symptom(
            Severity.NOTE,
            f"opset {opset} is newer than {_WIDELY_READ}",
            "engines of before 2025 don't read it",
            "Export with opset 17, if it must run there.",
        )
    if newest_ir is not None and file.model.ir_version > newest_ir:
        yield Symptom(
            Severity.ERROR,
            f"IR version {file.model.ir_version} is newer than {newest_ir}",
            f"{target.title} 1.32 refuses the file",
            f"Set model.ir_version = {newest_ir} (8 for opset 17) and save it again.",
        )


def half_scales(file: onnx.OnnxFile, target: targets.Target) -> Iterator[Symptom]:
    """Q/DQ files in FP16, which ONNX Runtime's CPU optimizer computes wrongly (measured; docs/architecture.md)."""
    scales = [(node, onnx.constant_tensor(onnx.input_at(node, 1))) for node in file.nodes(*onnx.PAIR)]
    names = [onnx.name_of(node) for node, s in scales if s is not None and s.dtype is ir.DataType.FLOAT16]
    if names and target.limits.half_wrong:
        yield Symptom(
            Severity.WARNING,
            "the scales are FP16",
            f"{target.title} computes such files wrongly on the CPU when it optimizes them, and says nothing",
            "Export with --precision fp32 for the CPU; or switch optimization off: graph_optimization_level = "
            "ORT_DISABLE_ALL, as keras-qat does.",
            tuple(names),
        )


def dynamic_shape(file: onnx.OnnxFile, _: targets.Target) -> Iterator[Symptom]:
    """Dimensions other than the batch that are known only when the file runs.

    Source: https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/work-dynamic-shapes.html.
    """
    stored = file.model.graph.initializers
    inputs = [value for value in file.model.graph.inputs if value.name not in stored]
    names = [str(value.name) for value in inputs if not _fixed_but_batch(value.shape)]
    if names:
        yield Symptom(
            Severity.WARNING,
            "dimensions of inputs besides the batch are dynamic",
            "engines plan memory and kernels at each size; TensorRT wants a profile of sizes before it builds",
            "Export with the size that you deploy: keras-qat does. python -m "
            "onnxruntime.tools.make_dynamic_shape_fixed --input_name NAME --input_shape 1,3,224,224 IN OUT.",
            tuple(names),
        )


def _fixed_but_batch(shape: ir.Shape | None) -> bool:
    return shape is not None and all(isinstance(size, int) for size in list(shape)[1:])


def _types(nodes: list[ir.Node]) -> str:
    """The types of some nodes with their domains, each once."""
    return ", ".join(dict.fromkeys(f"{node.domain}.{node.op_type}".removeprefix(".") for node in nodes))
