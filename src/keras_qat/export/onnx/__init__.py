"""The ONNX emitter: straight from the Keras graph to a Q/DQ file."""

from keras_qat.export.onnx.emission import Emission, Step
from keras_qat.export.onnx.emit import emit, require_opset
from keras_qat.export.onnx.registry import register_converter
from keras_qat.export.onnx.write import export_onnx

__all__ = ["Emission", "Step", "emit", "export_onnx", "register_converter", "require_opset"]
