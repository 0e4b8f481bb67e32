from .keras_runtime import KerasRuntime, SavedModelRuntime
from .onnxruntime_runtime import OnnxRuntime, open_session
from .openvino_runtime import OpenVINORuntime
from .registry import ADAPTERS, Adapter, EngineBuild, Judge, build_engine, choose_judge, open_graph, open_runtime
from .runtime import BatchRange, BuildOptions, Runtime, TensorSpec, engine_failure, import_optional
from .tensorrt_build import build_plan
from .tensorrt_runtime import TensorRTRuntime, why_no_gpu

__all__ = [
    "ADAPTERS",
    "Adapter",
    "BatchRange",
    "BuildOptions",
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
    "build_plan",
    "choose_judge",
    "engine_failure",
    "import_optional",
    "open_graph",
    "open_runtime",
    "open_session",
    "why_no_gpu",
]
