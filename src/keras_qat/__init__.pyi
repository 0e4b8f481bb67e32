from ._version import __version__
from .calibration import Quantized, Ranges, calibrate, correct_bias, quantize
from .export import export_keras, export_onnx
from .graph import trace
from .onnx import register_converter
from .placement import Overrides, Rule, explain, plan
from .training import Recipe, fine_tune
from .transform import apply_placement
from .types import Placement, QuantSpec, TensorRange

__all__ = [
    "Overrides",
    "Placement",
    "QuantSpec",
    "Quantized",
    "Ranges",
    "Recipe",
    "Rule",
    "TensorRange",
    "__version__",
    "apply_placement",
    "calibrate",
    "correct_bias",
    "explain",
    "export_keras",
    "export_onnx",
    "fine_tune",
    "plan",
    "quantize",
    "register_converter",
    "trace",
]
