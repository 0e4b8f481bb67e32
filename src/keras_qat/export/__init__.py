"""Deployable files: ONNX, SavedModel, `.keras`."""

from keras_qat.export.keras_file import export_keras
from keras_qat.export.onnx import Emission, Step, export_onnx, register_converter, require_opset
from keras_qat.export.verify import FileVerification, Finding, require_verified, verify_file

__all__ = [
    "Emission",
    "FileVerification",
    "Finding",
    "Step",
    "export_keras",
    "export_onnx",
    "register_converter",
    "require_opset",
    "require_verified",
    "verify_file",
]
