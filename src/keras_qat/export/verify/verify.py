"""Is a file what was planned? Its structure is held to the placement; its numbers are the matter of `tensor_errors`."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx

from keras_qat.errors import GateMissedError
from keras_qat.export.onnx.passes.half_scales import half_scale
from keras_qat.export.verify.deployed import DeployedFile, read_deployed
from keras_qat.export.verify.edges import edge_findings
from keras_qat.export.verify.finding import FILE, FileVerification, Finding
from keras_qat.export.verify.weights import weight_findings
from keras_qat.layers import FakeQuantize, scale_of
from keras_qat.targets import Target, find_target
from keras_qat.transform import fake_quantize_name
from keras_qat.types import Placement

Scales = Mapping[str, np.floating[Any]]


def verify_file(
    path: str | Path, placement: Placement, target: str | Target | None = None, *, model: Any = None
) -> FileVerification:
    """Hold a file's quantization to the placement, edge for edge and kernel for kernel.

    Args:
        path: an ONNX file that `export_onnx` wrote, of any opset and precision.
        placement: what it was planned to be.
        target: the engine that it was written for; the placement's if not given.
        model: the quantized Keras model that it was exported from. With it, each scale must be the simulated one.

    Returns:
        What is wrong, the first layer of the network first; what ONNX's own checker refuses, strict shape inference
        included, comes last.

    Raises:
        StorageError: the file can't be read, or wasn't written by `export_onnx`.
        UserError: the target is unknown.

    Example:
        >>> import tempfile
        >>> from keras_qat import apply_placement, export_onnx, plan, trace
        >>> from keras_qat.types import TensorRange
        >>> x = keras.Input((8, 8, 3), name="image")
        >>> float_model = keras.Model(x, keras.layers.Conv2D(4, 3, name="conv")(x))
        >>> placement = plan(trace(float_model).graph, "tensorrt")
        >>> model = apply_placement(float_model, placement, {"image": TensorRange(1.0, "minmax", 1)})
        >>> path = export_onnx(model, Path(tempfile.mkdtemp()) / "model.onnx", target="tensorrt")
        >>> verify_file(path, placement, model=model).ok
        True
    """
    file = read_deployed(path)
    found = _findings(file, placement, find_target(placement.target if target is None else target), model)
    order = {name: i for i, name in enumerate(dict.fromkeys(edge.consumer for edge in placement.edges))}
    in_order = sorted(found, key=lambda finding: order.get(finding.layer, len(order)))
    return FileVerification(Path(path), len(placement.edges), (*in_order, *_checker_findings(path)))


def require_verified(
    path: str | Path, placement: Placement, target: str | Target | None = None, *, model: Any = None
) -> None:
    """Refuse a file whose quantization is not the placement's; arguments as of `verify_file`.

    Raises:
        GateMissedError: the file is not as was planned; names the first layer where it shows.
        StorageError: the file can't be read, or wasn't written by `export_onnx`.
    """
    findings = verify_file(path, placement, target, model=model).findings
    if findings:
        raise GateMissedError(
            f"The file isn't quantized as was planned, first at {findings[0].layer!r}: {findings[0].problem}. "
            f"Received: {str(path)!r} with {len(findings)} such places. Don't deploy it; please report the model."
        )


def _checker_findings(path: str | Path) -> Iterator[Finding]:
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        yield Finding(FILE, f"ONNX's checker refuses it: {error}")


def _findings(file: DeployedFile, placement: Placement, target: Target, model: Any) -> Iterator[Finding]:
    half = file.model.metadata_props.get("keras_qat.precision") == "fp16"
    yield from edge_findings(file, placement, {} if model is None else _scales(placement, model, half=half))
    yield from weight_findings(file, placement, target)


def _scales(placement: Placement, model: Any, *, half: bool) -> Scales:
    """The simulated scale of each tensor, as the file should store it."""
    layers = {layer.name: layer for layer in model.layers if isinstance(layer, FakeQuantize)}
    scales = {}
    for tensor in placement.tensors:
        layer = layers.get(fake_quantize_name(tensor.tensor))
        if layer is not None:
            s = np.float32(keras.ops.convert_to_numpy(scale_of(layer.amax, layer.spec)))
            scales[tensor.tensor] = half_scale(float(s)) if half else s
    return scales
