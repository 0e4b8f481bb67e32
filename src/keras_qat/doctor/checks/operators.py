"""Whether the file is whole: its graph, its external data, its numbers.

Operators that an engine doesn't know, and quantization that isn't static.

Versions: too old for what the file holds, too new for the engine.

Inputs whose size is left open.
"""

from collections.abc import Iterator

import numpy as np
import onnx
import onnx_ir as ir

from keras_qat.doctor.findings import Severity, Symptom
from keras_qat.onnx import INTEGER, PAIR, OnnxFile, input_at, name_of, numbers, stored_tensor
from keras_qat.targets import Engine

_AGAIN = "Export it again. If it was copied, copy what lies beside it too."


def empty_graph(file: OnnxFile, _: Engine) -> Iterator[Symptom]:
    """A graph without nodes."""
    if not len(file.model.graph):
        yield Symptom(Severity.ERROR, "the graph has no nodes", "it computes nothing", _AGAIN)


def missing_data(file: OnnxFile, _: Engine) -> Iterator[Symptom]:
    """Weights that should lie beside the file.

    Source: https://onnx.ai/onnx/repo-docs/ExternalData.html.
    """
    if file.missing_data:
        yield Symptom(
            Severity.ERROR,
            "the external data of these tensors are missing or cut short",
            "no engine can load the file",
            "Copy the data file to where the .onnx file lies, under its old name; or save all in one file: "
            "onnx.save_model(model, path, save_as_external_data=False).",
            file.missing_data,
        )


def invalid_model(file: OnnxFile, _: Engine) -> Iterator[Symptom]:
    """What ONNX's own checker refuses: https://onnx.ai/onnx/api/checker.html."""
    if file.missing_data or not len(file.model.graph):
        return
    try:
        onnx.checker.check_model(str(file.path))
    except Exception as error:  # noqa: BLE001  (ValidationError for most, but not for all that it meets)
        said = " ".join(str(error).split())[:200]
        yield Symptom(Severity.ERROR, f"it is no valid ONNX: {said}", "engines refuse it or guess", _AGAIN)


def not_finite(file: OnnxFile, _: Engine) -> Iterator[Symptom]:
    """Weights that are NaN or infinite."""
    bad = [
        str(name)
        for name, value in file.model.graph.initializers.items()
        if (array := numbers(value)) is not None and array.dtype.kind == "f" and not np.all(np.isfinite(array))
    ]
    if bad:
        yield Symptom(
            Severity.ERROR,
            "stored numbers are NaN or infinite",
            "what they touch becomes NaN",
            "Look for the epoch in which training diverged, and export an earlier one.",
            tuple(bad),
        )


_QDQ = "write Q/DQ pairs instead: quantize_static(…, quant_format=QuantFormat.QDQ), or keras-qat"


def unknown_operator(file: OnnxFile, engine: Engine) -> Iterator[Symptom]:
    """Operators of a domain that the engine doesn't know, and that the file doesn't define as functions."""
    defined = {(function.domain, function.name) for function in file.model.functions.values()}
    nodes = [
        node
        for node in file.model.graph
        if node.domain not in engine.limits.domains and (node.domain, node.op_type) not in defined
    ]
    if nodes:
        yield Symptom(
            Severity.ERROR,
            f"{_types(nodes)}: no operators of ONNX",
            "an engine that wasn't given a plugin for them refuses the file",
            "Export from the training framework without engine-specific optimization (an ONNX Runtime session's "
            f"optimized_model_filepath writes such files); if it is quantization, {_QDQ}.",
            tuple(map(name_of, nodes)),
        )


def refused_operator(file: OnnxFile, engine: Engine) -> Iterator[Symptom]:
    """Operators in integers (QOperator format) that the engine doesn't take."""
    limits = engine.limits
    nodes = [node for node in file.model.graph if node.domain in limits.domains and node.op_type in limits.refuses]
    if nodes:
        yield Symptom(
            Severity.ERROR,
            f"{_types(nodes)}: not supported",
            f"{limits.title} refuses the file",
            f"{_QDQ[0].upper()}{_QDQ[1:]}.",
            tuple(map(name_of, nodes)),
        )


def dynamic_quantization(file: OnnxFile, _: Engine) -> Iterator[Symptom]:
    """Ranges that are measured at every run.

    Source: https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html, "Method selection".
    """
    nodes = file.nodes("DynamicQuantizeLinear")
    if nodes and any(op.node.op_type in INTEGER for op in file.operations):
        yield Symptom(
            Severity.WARNING,
            "ranges are measured at each run (dynamic quantization)",
            "slow for convolutions, whose tensors are large",
            "Quantize statically, with calibration images: keras-qat, or quantize_static in place of quantize_dynamic.",
            tuple(map(name_of, nodes)),
        )


def _types(nodes: list[ir.Node]) -> str:
    """The types of some nodes, each once, with their domains."""
    return ", ".join(dict.fromkeys(f"{node.domain}.{node.op_type}".removeprefix(".") for node in nodes))


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


def dynamic_shape(file: OnnxFile, _: Engine) -> Iterator[Symptom]:
    """Dimensions but the batch that are known only when the file runs.

    Source: https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/work-dynamic-shapes.html.
    """
    stored = file.model.graph.initializers
    names = [
        str(value.name)
        for value in file.model.graph.inputs
        if value.name not in stored
        and (value.shape is None or any(not isinstance(size, int) for size in list(value.shape)[1:]))
    ]
    if names:
        yield Symptom(
            Severity.WARNING,
            "dimensions of inputs besides the batch are dynamic",
            "engines plan memory and kernels at each size; TensorRT wants a profile of sizes before it builds",
            "Export with the size that you deploy: keras-qat does. python -m "
            "onnxruntime.tools.make_dynamic_shape_fixed --input_name NAME --input_shape 1,3,224,224 IN OUT.",
            tuple(names),
        )
