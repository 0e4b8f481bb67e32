"""OpenVINO: run ONNX and IR files, write IR."""

from keras_qat.runtimes.openvino.build import build_ir
from keras_qat.runtimes.openvino.core import import_openvino
from keras_qat.runtimes.openvino.runtime import OpenVINORuntime

__all__ = ["OpenVINORuntime", "build_ir", "import_openvino"]
