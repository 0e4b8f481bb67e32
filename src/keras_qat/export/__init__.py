"""Deployable files: ONNX, SavedModel, `.keras`."""

from keras_qat.export.keras_file import export_keras
from keras_qat.export.onnx import Emission, Step, export_onnx, register_converter, require_opset

__all__ = ["Emission", "Step", "export_keras", "export_onnx", "register_converter", "require_opset"]
