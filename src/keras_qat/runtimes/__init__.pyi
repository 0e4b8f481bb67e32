from .judge import JUDGES, EngineBuild, Judge, build_engine, choose_judge
from .keras_runtime import KerasRuntime, SavedModelRuntime
from .onnxruntime_runtime import OnnxRuntime, open_session
from .openvino_runtime import OpenVINORuntime, build_ir, import_openvino
from .registry import ENGINES, Engine, find_engine, open_runtime
from .runtime import BatchRange, Runtime, TensorSpec, import_optional
from .tensorrt_build import TENSORRT, TENSORRT_RTX, Flavor, build_plan
from .tensorrt_runtime import TensorRTRuntime, why_no_gpu

__all__ = [
    "ENGINES",
    "JUDGES",
    "TENSORRT",
    "TENSORRT_RTX",
    "BatchRange",
    "Engine",
    "EngineBuild",
    "Flavor",
    "Judge",
    "KerasRuntime",
    "OnnxRuntime",
    "OpenVINORuntime",
    "Runtime",
    "SavedModelRuntime",
    "TensorRTRuntime",
    "TensorSpec",
    "build_engine",
    "build_ir",
    "build_plan",
    "choose_judge",
    "find_engine",
    "import_openvino",
    "import_optional",
    "open_runtime",
    "open_session",
    "why_no_gpu",
]
