"""Operators that an engine doesn't know, and quantization that isn't static."""

from collections.abc import Iterator

import onnx_ir as ir

from keras_qat.doctor.engines import Engine
from keras_qat.doctor.finding import Severity, Symptom
from keras_qat.doctor.onnx_file import OnnxFile
from keras_qat.doctor.operations import INTEGER, name_of

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
