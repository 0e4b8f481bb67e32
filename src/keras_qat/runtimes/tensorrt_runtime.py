"""TensorRT and TensorRT-RTX on an NVIDIA GPU, with its memory managed through NVIDIA's own `cuda-python`.

API of the latter: https://nvidia.github.io/cuda-python/cuda-bindings/latest/module/runtime.html. Each call returns
(error, *results).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_qat.errors import DataError, StorageError, UnsupportedModelError, UserError
from keras_qat.files import require_trusted
from keras_qat.runtimes.runtime import Runtime, TensorSpec, import_engine, import_optional
from keras_qat.runtimes.tensorrt_build import engine_version, recorded
from keras_qat.targets import Engine

_NO_CUDA = "cudaError"
"""Is part of every message that concerns the machine and not the file."""


def why_no_gpu() -> str | None:
    """Why no GPU can be used here, or `None` if one can."""
    try:
        _check(cudart := _import(), cudart.cudaGetDeviceCount())
    except UserError as error:
        return str(error)
    return None


class TensorRTRuntime(Runtime):
    """Runs an engine file. Inputs are copied to the GPU and outputs from it in every run, as in production.

    Args:
        path: the file, as `build_engine` wrote it.
        engine: TensorRT or TensorRT-RTX, whichever built it.
        trust: whether the code in the engine may run, even if this tool did not build it.

    Raises:
        StorageError: If the file is missing or corrupt, or was built by another version or for another GPU.
        UserError: If the engine is not trusted, the package is not installed, or there is no usable GPU.
    """

    def __init__(self, path: str | Path, *, engine: Engine, trust: bool = False) -> None:
        require_trusted(Path(path), trust=trust)
        trt = import_engine(engine)
        self._engine = _deserialize(trt, engine, Path(path))
        self._memory = DeviceMemory()
        device = self._memory.device
        self._context = self._engine.create_execution_context()
        if self._context is None:
            self._memory.close()
            raise UserError(
                f"{engine.title} can't prepare the engine to run. Received: {str(path)!r} on {device}. "
                "Free GPU memory, or build it again on this machine with `keras-qat build-engine`."
            )
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        reads = [name for name in names if self._engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        super().__init__(
            engine_version(engine, trt),
            device,
            tuple(_spec(trt, self._engine, name) for name in reads),
            tuple(_spec(trt, self._engine, name) for name in names if name not in reads),
        )

    def _run(self, inputs: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        # The arrays must live until the copies are done.
        inputs = tuple(map(np.ascontiguousarray, inputs))
        for spec, array in zip(self.inputs, inputs, strict=True):
            least, _, most = (tuple(shape) for shape in self._engine.get_tensor_profile_shape(spec.name, 0))
            if not all(low <= size <= high for low, size, high in zip(least, array.shape, most, strict=True)):
                raise DataError(
                    f"The engine was built for {spec.name!r} of shapes {least} to {most}. Received: {array.shape}. "
                    "Give smaller batches, or build it again with another --max-batch."
                )
            self._context.set_input_shape(spec.name, array.shape)
            self._context.set_tensor_address(spec.name, self._memory.upload(spec.name, array))
        outputs = tuple(np.empty(tuple(self._context.get_tensor_shape(o.name)), o.dtype) for o in self.outputs)
        for spec, array in zip(self.outputs, outputs, strict=True):
            self._context.set_tensor_address(spec.name, self._memory.reserve(spec.name, array.nbytes))
        if not self._context.execute_async_v3(self._memory.stream):
            raise UserError(
                f"The engine failed to run. Received: inputs of shape {', '.join(str(a.shape) for a in inputs)}. "
                "Free GPU memory, or build it again on this machine with `keras-qat build-engine`."
            )
        for spec, array in zip(self.outputs, outputs, strict=True):
            self._memory.download(spec.name, array)
        self._memory.synchronize()
        return outputs

    def _close(self) -> None:
        # The context uses the buffers, and the engine must outlive its context.
        del self._context, self._engine
        self._memory.close()


class DeviceMemory:
    """GPU buffers by tensor name, which grow when they must, and the stream that all work runs in.

    Raises:
        UserError: If `cuda-python` is not installed, or there is no usable GPU.
    """

    def __init__(self) -> None:
        self._cudart = _import()
        self._buffers: dict[str, _Buffer] = {}
        self._stream = self._call("cudaStreamCreate")

    @property
    def device(self) -> str:
        """The GPU's name."""
        properties = self._call("cudaGetDeviceProperties", self._call("cudaGetDevice"))
        return str(properties.name.decode().rstrip("\0"))

    @property
    def stream(self) -> int:
        """The handle of the stream."""
        return int(self._stream)

    def reserve(self, name: str, size: int) -> int:
        """The address of a buffer of at least `size` bytes. An earlier address of the same name may become invalid."""
        buffer = self._buffers.get(name)
        if buffer is None or buffer.size < size:
            self._free(name)
            # CUDA returns no address for 0 bytes.
            buffer = self._buffers[name] = _Buffer(int(self._call("cudaMalloc", max(size, 1))), size)
        return buffer.address

    def upload(self, name: str, array: np.ndarray) -> int:
        """Copy a contiguous array to the GPU, in the stream, and return its address there."""
        address = self.reserve(name, array.nbytes)
        kind = self._cudart.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", address, array.ctypes.data, array.nbytes, kind, self._stream)
        return address

    def download(self, name: str, array: np.ndarray) -> None:
        """Copy a buffer into a contiguous array, in the stream. The array is valid after `synchronize`."""
        kind = self._cudart.cudaMemcpyKind.cudaMemcpyDeviceToHost
        address = self._buffers[name].address
        self._call("cudaMemcpyAsync", array.ctypes.data, address, array.nbytes, kind, self._stream)

    def synchronize(self) -> None:
        """Wait for all work in the stream."""
        self._call("cudaStreamSynchronize", self._stream)

    def close(self) -> None:
        """Free all buffers and the stream."""
        for name in tuple(self._buffers):
            self._free(name)
        self._call("cudaStreamDestroy", self._stream)

    def _free(self, name: str) -> None:
        buffer = self._buffers.pop(name, None)
        if buffer is not None:
            self._call("cudaFree", buffer.address)

    def _call(self, function: str, *arguments: Any) -> Any:
        return _check(self._cudart, getattr(self._cudart, function)(*arguments))


@dataclass(frozen=True)
class _Buffer:
    address: int
    size: int


def _import() -> Any:
    return import_optional("cuda.bindings.runtime", title="cuda-python", install="cuda-python")


def _check(cudart: Any, result: tuple[Any, ...]) -> Any:
    code, *values = result
    if code != cudart.cudaError_t.cudaSuccess:
        _, text = cudart.cudaGetErrorString(code)
        raise UserError(
            f"CUDA failed. Received: {text.decode()} ({code.name}). Check with nvidia-smi that there is an NVIDIA GPU "
            "with memory left, and a driver that fits the installed CUDA libraries."
        )
    return values[0] if values else None


def _deserialize(trt: Any, engine: Engine, path: Path) -> Any:
    try:
        plan = path.read_bytes()
    except OSError as error:
        raise StorageError(f"Can't read the engine: {error.strerror}. Received: {str(path)!r}.") from error
    with recorded(trt) as (logger, log):
        try:
            runtime = trt.Runtime(logger)
        except TypeError as error:
            raise _no_gpu(engine, path, str(error)) from error
        # Only TensorRT-RTX has this check, and it reports a wrong version as a note.
        validity = getattr(runtime, "get_engine_validity", None)
        valid = validity is None or validity(plan)[0] != trt.EngineValidity.INVALID
    notes = () if valid else log.notes()
    with recorded(trt) as (_, log):
        deserialized = runtime.deserialize_cuda_engine(plan)
    if deserialized is not None:
        return deserialized
    complaints = (*notes, *log.errors())
    about_the_file = [text for text in complaints if _NO_CUDA not in text]
    if about_the_file:
        raise StorageError(
            f"{engine_version(engine, trt)} can't load the engine {str(path)!r}. Received: "
            f"{'; '.join(about_the_file)}. Build it again: keras-qat build-engine MODEL.onnx --engine {engine.name}"
        )
    raise _no_gpu(engine, path, "; ".join(complaints))


def _no_gpu(engine: Engine, path: Path, received: str) -> UserError:
    return UserError(
        f"{engine.title} finds no usable GPU to run {str(path)!r}. Received: {received}. "
        "Run it on a machine where nvidia-smi shows a GPU; run the .onnx file itself on this one."
    )


def _spec(trt: Any, engine: Any, name: str) -> TensorSpec:
    try:
        dtype = np.dtype(trt.nptype(engine.get_tensor_dtype(name)))
    except TypeError as error:
        raise UnsupportedModelError(
            f"{name!r} is of a type that NumPy doesn't have. Received: {engine.get_tensor_dtype(name)}. "
            "Export a model that reads and writes float32 or float16."
        ) from error
    shape = tuple(None if size == -1 else size for size in engine.get_tensor_shape(name))
    return TensorSpec(name, shape, dtype)
