from .checked import Exported, ExportSettings, export_file
from .keras_formats import export_keras, export_saved_model
from .onnx_file import export_onnx
from .options import ExportOptions

__all__ = [
    "ExportOptions",
    "ExportSettings",
    "Exported",
    "export_file",
    "export_keras",
    "export_onnx",
    "export_saved_model",
]
