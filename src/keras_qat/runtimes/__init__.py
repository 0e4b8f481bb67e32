"""Engines behind one contract."""

from keras_qat.runtimes.keras_runtime import KerasRuntime
from keras_qat.runtimes.onnxruntime_runtime import OnnxRuntime
from keras_qat.runtimes.runtime import Runtime

__all__ = ["KerasRuntime", "OnnxRuntime", "Runtime"]
