"""Engines behind one contract."""

from keras_qat.runtimes.build import EngineBuild, build_engine
from keras_qat.runtimes.judge import JUDGES, Judge, choose_judge
from keras_qat.runtimes.keras_runtime import KerasRuntime
from keras_qat.runtimes.onnxruntime_runtime import OnnxRuntime
from keras_qat.runtimes.openvino import OpenVINORuntime
from keras_qat.runtimes.options import BatchRange
from keras_qat.runtimes.registry import ENGINES, Engine, find_engine, open_runtime
from keras_qat.runtimes.runtime import Runtime, TensorSpec
from keras_qat.runtimes.saved_model_runtime import SavedModelRuntime
from keras_qat.runtimes.tensorrt import TENSORRT, TENSORRT_RTX, TensorRTRuntime

__all__ = [
    "ENGINES",
    "JUDGES",
    "TENSORRT",
    "TENSORRT_RTX",
    "BatchRange",
    "Engine",
    "EngineBuild",
    "Judge",
    "KerasRuntime",
    "OnnxRuntime",
    "OpenVINORuntime",
    "Runtime",
    "SavedModelRuntime",
    "TensorRTRuntime",
    "TensorSpec",
    "build_engine",
    "choose_judge",
    "find_engine",
    "open_runtime",
]
