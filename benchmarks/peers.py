"""The tools beside which keras-qat is measured, each on our float ONNX file and the same calibration images."""

import importlib.util
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

Make = Callable[[Path, Sequence[np.ndarray], Path], Path]
"""(float file, calibration images of shape (1, height, width, channels), folder) → the quantized file."""


@dataclass(frozen=True)
class Peer:
    """One tool.

    Args:
        name: as the table shows it.
        runtime: the engine that it quantizes for.
        make: quantizes.
        needs: the packages it needs, which `pip install` takes by these names.
    """

    name: str
    runtime: str
    make: Make
    needs: tuple[str, ...]

    def absent(self) -> str | None:
        """Why it can't take part here; `None` if it can."""
        missing = [name for name in self.needs if importlib.util.find_spec(name) is None]
        return f"not installed: pip install {' '.join(missing)}" if missing else None


def quantize_static(file: Path, images: Iterable[np.ndarray], folder: Path, method: str = "MinMax") -> Path:
    """ONNX Runtime's own tool as it recommends for x86 with VNNI: QDQ, uint8 activations, int8 weights per channel.

    Source: https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html, "Pre-processing", "Data type
    selection", "Representation format"; the calibration method is its default, min-max, or Percentile or Entropy.
    """
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._images: Iterator[np.ndarray] = iter(images)
            self._name = _input_name(file)

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self._images, None)
            return None if image is None else {self._name: image}

    prepared, quantized = folder / "quantize_static-prepared.onnx", folder / "quantize_static.onnx"
    quant_pre_process(str(file), str(prepared))
    quantization.quantize_static(
        str(prepared),
        str(quantized),
        Reader(),
        quant_format=quantization.QuantFormat.QDQ,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
        per_channel=True,
        calibrate_method=quantization.CalibrationMethod[method],
    )
    return quantized


def nncf_onnx(file: Path, images: Sequence[np.ndarray], folder: Path) -> Path:
    """`nncf.quantize` on the ONNX file, with its default settings."""
    import nncf

    name = _input_name(file)
    dataset = nncf.Dataset(images, lambda image: {name: image})
    quantized = folder / "nncf.onnx"
    onnx.save(nncf.quantize(onnx.load(file), dataset, subset_size=len(images)), quantized)
    return quantized


def nncf_openvino(file: Path, images: Sequence[np.ndarray], folder: Path) -> Path:
    """`nncf.quantize` on the file as OpenVINO reads it, with its default settings."""
    import nncf
    import openvino

    model: Any = openvino.Core().read_model(file)
    quantized = folder / "nncf.xml"
    openvino.save_model(
        nncf.quantize(model, nncf.Dataset(images), subset_size=len(images)), quantized, compress_to_fp16=False
    )
    return quantized


def _input_name(file: Path) -> str:
    return str(onnx.load(file, load_external_data=False).graph.input[0].name)


PEERS = (
    Peer("quantize_static", "onnxruntime", quantize_static, ("onnxruntime",)),
    Peer("NNCF (ONNX)", "onnxruntime", nncf_onnx, ("nncf",)),
    Peer("NNCF (OpenVINO)", "openvino", nncf_openvino, ("nncf", "openvino")),
)
