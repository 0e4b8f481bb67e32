"""A CUDA stream and named buffers on the GPU, through NVIDIA's own `cuda-python`.

API: https://nvidia.github.io/cuda-python/cuda-bindings/latest/module/runtime.html. Each call returns (error, *results).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_qat.errors import UserError
from keras_qat.runtimes.optional import import_optional


def why_no_gpu() -> str | None:
    """Why no GPU can be used here, or `None` if one can."""
    try:
        _check(cudart := _import(), cudart.cudaGetDeviceCount())
    except UserError as error:
        return str(error)
    return None


class DeviceMemory:
    """Device buffers by tensor name, made larger when they must be, and the stream that all work runs in.

    Raises:
        UserError: `cuda-python` isn't installed, or there is no usable GPU.
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
        """The address of a buffer of at least `size` bytes. An address given for the name before may be void."""
        buffer = self._buffers.get(name)
        if buffer is None or buffer.size < size:
            self._free(name)
            # CUDA gives no address for nothing.
            buffer = self._buffers[name] = _Buffer(int(self._call("cudaMalloc", max(size, 1))), size)
        return buffer.address

    def upload(self, name: str, array: np.ndarray) -> int:
        """Copy a contiguous array to the GPU, in the stream; return its address there."""
        address = self.reserve(name, array.nbytes)
        kind = self._cudart.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", address, array.ctypes.data, array.nbytes, kind, self._stream)
        return address

    def download(self, name: str, array: np.ndarray) -> None:
        """Copy into a contiguous array from the GPU, in the stream: valid after `synchronize`."""
        kind = self._cudart.cudaMemcpyKind.cudaMemcpyDeviceToHost
        address = self._buffers[name].address
        self._call("cudaMemcpyAsync", array.ctypes.data, address, array.nbytes, kind, self._stream)

    def synchronize(self) -> None:
        """Wait for all work of the stream."""
        self._call("cudaStreamSynchronize", self._stream)

    def close(self) -> None:
        """Free everything."""
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
