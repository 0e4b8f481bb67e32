"""Checks of a network's files, by the package's own gates and by runs in the engines that know nothing of them."""

from collections import Counter
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import onnxruntime

from keras_qat import Quantized, quantize
from keras_qat.export import export_onnx
from keras_qat.verify import tensor_errors, tensor_miss, verify_file

TARGETS = ("onnxruntime", "openvino", "tensorrt")

WEIGHTED = frozenset(
    {"Conv", "ConvTranspose", "FusedConv", "FusedGemm", "FusedMatMul", "Gemm", "MatMul", "NhwcFusedConv"}
)
INTEGER = frozenset({"ConvInteger", "MatMulInteger", "QGemm", "QLinearConv", "QLinearMatMul"})
"""Weighted operators of ONNX Runtime in float and in integers."""

Arrays = list[np.ndarray]


def predict(model: keras.Model, inputs: Arrays) -> Arrays:
    """The outputs of a Keras model."""
    made = model.predict_on_batch(inputs if len(inputs) > 1 else inputs[0])
    return [np.asarray(y) for y in keras.tree.flatten(made)]


def run_in_onnxruntime(path: Path, inputs: Arrays, *, optimize: bool, optimized: Path | None = None) -> Arrays:
    """The outputs of a file in ONNX Runtime, which writes the file as it runs it to `optimized`."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    if not optimize:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [x.name for x in session.get_inputs()]
    outputs: Arrays = session.run(None, dict(zip(names, inputs, strict=True)))
    return outputs


def run_in_openvino(path: Path, inputs: Arrays) -> Arrays:
    """The outputs of a file in OpenVINO."""
    import openvino

    compiled = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return [np.array(y) for y in compiled(inputs).values()]


def sqnr(y: np.ndarray, made: np.ndarray) -> float:
    """The signal-to-noise ratio in dB; 200 if both are equal."""
    y, made = y.astype("float64"), made.astype("float64")
    signal, noise = np.sum(y**2), np.sum((made - y) ** 2)
    return 200.0 if noise == 0 else float(10 * np.log10(max(signal, 1e-30) / noise))


def check_float_file(model: keras.Model, inputs: Arrays, expected: Arrays, folder: Path) -> None:
    """The float file computes in ONNX Runtime what Keras computes, up to 1e-4 of the largest number."""
    path = export_onnx(model, folder / "float.onnx")
    for optimize in (False, True):
        made = run_in_onnxruntime(path, inputs, optimize=optimize)
        for y, other in zip(expected, made, strict=True):
            assert (other.dtype, other.shape) == (y.dtype, y.shape)
            error, largest = np.abs(other.astype("float64") - y).max(), np.abs(y.astype("float64")).max()
            assert error <= 1e-4 * largest + 1e-6, f"float file, optimized: {optimize}: off by {error} of {largest}"


def check_quantized_file(
    model: keras.Model, inputs: Arrays, expected: Arrays, target: str, folder: Path, **options: Any
) -> Quantized:
    """The INT8 file is right by the package's gates, and in the engine.

    There the signal-to-noise ratio against the simulation is at least 25 dB, or 10 dB better than that of the
    simulation against the float network, since two right engines drift apart.
    """
    one = len(inputs) == 1 and model.inputs[0].shape[0] is None
    quantized = quantize(model, inputs[0] if one else [inputs], target, **options)
    path = export_onnx(quantized.model, folder / f"{target}.onnx", target=target)
    assert verify_file(path, quantized.placement, target, model=quantized.model).findings == ()
    miss = tensor_miss("INT8", tensor_errors(quantized.model, path, [(inputs, None)]))
    assert miss is None, miss
    runs = {"ONNX Runtime, unoptimized": run_in_onnxruntime(path, inputs, optimize=False)}
    if target == "openvino":
        runs["OpenVINO"] = run_in_openvino(path, inputs)
    else:
        runs["ONNX Runtime"] = run_in_onnxruntime(path, inputs, optimize=True, optimized=folder / "optimized.onnx")
    simulated = predict(quantized.model, inputs)
    for engine, made in runs.items():
        for y, other, exact in zip(simulated, made, expected, strict=True):
            ratio, least = sqnr(y, other), min(25.0, sqnr(exact, y) + 10)
            assert ratio >= least, f"{engine}: {ratio:.1f} dB from its simulation, {least:.1f} are required"
    return quantized


def weighted_operators(optimized: Path) -> tuple[int, int]:
    """How many weighted operators ONNX Runtime runs in integers, and how many in float."""
    counts = Counter(node.op_type for node in onnx.load(optimized).graph.node)
    return sum(counts[name] for name in INTEGER), sum(counts[name] for name in WEIGHTED)
