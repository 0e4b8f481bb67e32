"""Is the structure of a file as was planned? Its edges and kernels are compared with the placement's.

Its numbers are the subject of `tensor_errors`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_qat import onnx, targets, transform
from keras_qat.errors import GateMissedError, UserError
from keras_qat.layers import FakeQuantize, scale_of
from keras_qat.types import Placement
from keras_qat.verify import deployed, structure_edges, structure_kernels
from keras_qat.verify.promises import ATTACH


@dataclass(frozen=True)
class FileVerification:
    """The result for one file.

    Args:
        path: the file.
        edges: number of edges of the placement that were compared.
        findings: what is wrong, the first layer of the network first; empty for a right file.
    """

    path: Path
    edges: int
    findings: tuple[deployed.Mismatch, ...]

    @property
    def ok(self) -> bool:
        """Whether the file is as was planned."""
        return not self.findings

    @property
    def miss(self) -> str | None:
        """What is wrong first, and in how many places anything is, in words; `None` for a right file."""
        if self.ok:
            return None
        return (
            f"The file isn't quantized as was planned, first at {self.findings[0].layer!r}: "
            f"{self.findings[0].problem}. Received: {str(self.path)!r} with {len(self.findings)} such places."
        )


def verify_file(
    path: str | Path, placement: Placement, target: str | targets.Target | None = None, *, model: Any = None
) -> FileVerification:
    """Compare a file's quantization with the placement, edge for edge and kernel for kernel.

    Args:
        path: an ONNX file that `export_onnx` wrote, of any opset and precision.
        placement: the plan that the file was exported by.
        target: the engine that it was written for; the placement's if not given.
        model: the quantized Keras model that it was exported from. With it, each scale must be the simulated one.

    Returns:
        What is wrong, the first layer of the network first. What ONNX's own checker refuses, strict shape inference
        included, comes last.

    Raises:
        StorageError: If the file can't be read, or was not written by `export_onnx`.
        UserError: If the target is unknown, or the file was written for another one.

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
    file = deployed.read_deployed(path)
    chosen = targets.find_target(placement.target if target is None else target)
    _require_target(Path(path), file.content.target, chosen.name)
    half = file.content.precision == "fp16"
    scales = {} if model is None else _simulated_scales(placement, model, half=half)
    mismatches = [
        *structure_edges.edge_mismatches(file, placement, scales),
        *structure_kernels.kernel_mismatches(file, placement, chosen),
    ]
    order = {name: i for i, name in enumerate(dict.fromkeys(edge.consumer for edge in placement.edges))}
    mismatches.sort(key=lambda mismatch: order.get(mismatch.layer, len(order)))
    refusal = file.content.refusal(infer_shapes=True)
    if refusal is not None:
        mismatches.append(deployed.Mismatch(deployed.FILE, f"ONNX's checker refuses it: {refusal}"))
    return FileVerification(Path(path), len(placement.edges), tuple(mismatches))


def _require_target(path: Path, written: str, planned: str) -> None:
    """Refuse a placement for another engine than the file's; its differences would be taken for a fault of the file."""
    if written not in {"", planned}:
        raise UserError(
            f"The placement is for another engine than the file. Received: a placement for {planned}, and "
            f"{str(path)!r}, written for {written}. Give the placement.json that was made with the file."
        )


def require_verified(
    path: str | Path, placement: Placement, target: str | targets.Target | None = None, *, model: Any = None
) -> None:
    """Raise an error unless a file's quantization is the placement's. The arguments are those of `verify_file`.

    Raises:
        GateMissedError: If the file is not as was planned; the message names the first layer where it shows.
        StorageError: If the file can't be read, or was not written by `export_onnx`.
    """
    miss = verify_file(path, placement, target, model=model).miss
    if miss is not None:
        raise GateMissedError(
            f"{miss} Don't deploy it. To go on, keep that layer in float by a rule in --overrides (docs/overrides.md). "
            f"{ATTACH}"
        )


def _simulated_scales(placement: Placement, model: Any, *, half: bool) -> Mapping[str, np.floating[Any]]:
    """The scale that the file should store for each tensor: the simulated one, rounded if the file is in FP16."""
    layers = {layer.name: layer for layer in model.layers if isinstance(layer, FakeQuantize)}
    scales = {}
    for tensor in placement.tensors:
        layer = layers.get(transform.fake_quantize_name(tensor.tensor))
        if layer is not None:
            s = np.float32(keras.ops.convert_to_numpy(scale_of(layer.amax, layer.spec)))
            scales[tensor.tensor] = onnx.half_scale(float(s)) if half else s
    return scales
