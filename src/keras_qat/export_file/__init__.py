"""A `.keras` file written as a deployable file, and held to it."""

from keras_qat.export_file.export import Exported, export_file
from keras_qat.export_file.settings import ExportSettings

__all__ = ["ExportSettings", "Exported", "export_file"]
