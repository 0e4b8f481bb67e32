"""TensorRT and TensorRT-RTX: one Python API, two packages."""

from keras_qat.runtimes.tensorrt.build import build_plan
from keras_qat.runtimes.tensorrt.device_memory import why_no_gpu
from keras_qat.runtimes.tensorrt.flavor import TENSORRT, TENSORRT_RTX, Flavor
from keras_qat.runtimes.tensorrt.runtime import TensorRTRuntime

__all__ = ["TENSORRT", "TENSORRT_RTX", "Flavor", "TensorRTRuntime", "build_plan", "why_no_gpu"]
