"""keras-qat: take a trained Keras 3 CNN to INT8 in production.

    from keras_qat import apply_placement, calibrate, export_onnx, plan, trace

    placement = plan(trace(model).graph, "tensorrt")
    ranges = calibrate(model, placement, batches)
    quantized = apply_placement(model, placement, ranges)
    export_onnx(quantized, "model.onnx", target="tensorrt")

Importing the package also makes Keras able to load quantized `.keras` files.
"""

from keras_qat import _backend  # noqa: F401  (before TensorFlow is imported)
from keras_qat._version import __version__
from keras_qat.calibration import Ranges, calibrate, correct_bias
from keras_qat.export import export_keras, export_onnx, register_converter
from keras_qat.graph import trace
from keras_qat.placement import Overrides, Rule, explain, plan
from keras_qat.training import Recipe, fine_tune
from keras_qat.transform import apply_placement
from keras_qat.types import Placement, QuantSpec, TensorRange

__all__ = [
    "Overrides",
    "Placement",
    "QuantSpec",
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
    "register_converter",
    "trace",
]
