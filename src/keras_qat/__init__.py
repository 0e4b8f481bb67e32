"""keras-qat: take a trained Keras 3 CNN to INT8 in production.

    from keras_qat import export_onnx, quantize

    quantized = quantize(model, images, target="onnxruntime")
    export_onnx(quantized.model, "model.onnx", target="onnxruntime")

In one call:

    quantize            float model + images → Quantized
    Quantized           the quantized Keras model, its placement and its ranges

Stage by stage, each a function that changes nothing of yours:

    trace               Keras model → its graph
    plan                graph + target → Placement
    explain             Placement → a table or a picture, with the reason of every edge
    calibrate           model + Placement + images → Ranges
    apply_placement     model + Placement + Ranges → a quantized model, which trains, saves and loads like any other
    correct_bias        take back the shift that rounding puts on the mean of each layer
    fine_tune           train the quantized model with the float one as teacher; never worse than before
    export_onnx         model, float or quantized → an ONNX file for a target
    export_keras        model → a .keras file

What you say:

    Overrides           what to place otherwise than the target's table: Rules in order
    Rule                one of them: which layers, and what of them is quantized
    Recipe              the settings of fine_tune
    register_converter  tell how a layer of your own becomes ONNX

What you get, all frozen:

    Placement           every edge and kernel: quantized or not, and why
    QuantSpec           the integers of a tensor: bits, sign, type, zero-point
    Ranges              the range of every tensor: a mapping that can be saved, loaded and compared
    TensorRange         one of them: its largest magnitude, how it was chosen, what was seen

Importing the package also makes Keras able to load quantized `.keras` files. Below are packages for those who extend it
or judge files: targets, calibration, training, export, runtimes, evaluation, data.
"""

from keras_qat import _backend  # Before TensorFlow is imported.
from keras_qat._version import __version__

# The command line loads what a command needs when it needs it: `--help` doesn't wait for TensorFlow.
if not _backend.IS_COMMAND_LINE:
    from keras_qat.calibration import Ranges, calibrate, correct_bias
    from keras_qat.export import export_keras, export_onnx, register_converter
    from keras_qat.graph import trace
    from keras_qat.placement import Overrides, Rule, explain, plan
    from keras_qat.quantization import Quantized, quantize
    from keras_qat.training import Recipe, fine_tune
    from keras_qat.transform import apply_placement
    from keras_qat.types import Placement, QuantSpec, TensorRange

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
