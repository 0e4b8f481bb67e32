"""TensorRT's way of running, on a machine without a GPU: stand-ins for its package and for CUDA, in host memory.

They hold the runtime to the documented calls: shapes set before addresses are read, addresses that are allocated and
large enough, copies within the stream and finished before anything is returned.
"""

import ctypes
import sys
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from keras_qat.errors import DataError, StorageError, UserError
from keras_qat.runtimes import TensorRTRuntime, open_runtime, why_no_gpu
from keras_qat.targets import find_engine

STREAM = 77


class CudaError(Enum):
    cudaSuccess = 0  # noqa: N815
    cudaErrorMemoryAllocation = 2  # noqa: N815


class Copy(Enum):
    cudaMemcpyHostToDevice = 1  # noqa: N815
    cudaMemcpyDeviceToHost = 2  # noqa: N815


class Cuda(ModuleType):
    """`cuda.bindings.runtime`, whose device memory is host memory. Downloads arrive when the stream is waited for."""

    cudaError_t, cudaMemcpyKind = CudaError, Copy  # noqa: N815

    def __init__(self) -> None:
        super().__init__("cuda.bindings.runtime")
        self.memory: dict[int, Any] = {}
        self.room = 1 << 20
        self.streams: list[int] = []
        self.under_way: list[Callable[[], Any]] = []

    def cudaGetDeviceCount(self) -> tuple[CudaError, int]:  # noqa: N802
        return CudaError.cudaSuccess, 1

    def cudaGetDevice(self) -> tuple[CudaError, int]:  # noqa: N802
        return CudaError.cudaSuccess, 0

    def cudaGetDeviceProperties(self, device: int) -> tuple[CudaError, Any]:  # noqa: N802
        assert device == 0
        return CudaError.cudaSuccess, SimpleNamespace(name=b"NVIDIA Stand-In")

    def cudaGetErrorString(self, _: CudaError) -> tuple[CudaError, bytes]:  # noqa: N802
        return CudaError.cudaSuccess, b"out of memory"

    def cudaStreamCreate(self) -> tuple[CudaError, int]:  # noqa: N802
        self.streams.append(STREAM)
        return CudaError.cudaSuccess, STREAM

    def cudaStreamDestroy(self, stream: int) -> tuple[CudaError]:  # noqa: N802
        self.streams.remove(stream)
        return (CudaError.cudaSuccess,)

    def cudaMalloc(self, size: int) -> tuple[CudaError, int | None]:  # noqa: N802
        if size > self.room:
            return CudaError.cudaErrorMemoryAllocation, None
        buffer = (ctypes.c_char * size)()
        self.memory[ctypes.addressof(buffer)] = buffer
        return CudaError.cudaSuccess, ctypes.addressof(buffer)

    def cudaFree(self, address: int) -> tuple[CudaError]:  # noqa: N802
        del self.memory[address]
        return (CudaError.cudaSuccess,)

    def cudaMemcpyAsync(self, to: int, source: int, size: int, kind: Copy, stream: int) -> tuple[CudaError]:  # noqa: N802
        assert stream in self.streams
        on_device = to if kind is Copy.cudaMemcpyHostToDevice else source
        assert size <= len(self.memory[on_device])
        self.under_way.append(lambda: ctypes.memmove(to, source, size))
        return (CudaError.cudaSuccess,)

    def cudaStreamSynchronize(self, stream: int) -> tuple[CudaError]:  # noqa: N802
        assert stream in self.streams
        for work in self.under_way:
            work()
        self.under_way.clear()
        return (CudaError.cudaSuccess,)


class Mode(Enum):
    INPUT = "input"
    OUTPUT = "output"


class Context:
    """Computes total = a + b in float16, and dot, the row sums of a·b, in float32."""

    def __init__(self, cuda: Cuda) -> None:
        self.cuda = cuda
        self.batch = 0
        self.addresses: dict[str, int] = {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert (name in "ab", shape[1]) == (True, 3)
        self.batch = shape[0]
        return True

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (self.batch, 3) if name == "total" else (self.batch,)

    def execute_async_v3(self, stream: int) -> bool:
        assert stream in self.cuda.streams
        self.cuda.under_way.append(self._compute)
        return True

    def _array(self, name: str, dtype: str, count: int) -> np.ndarray:
        return np.frombuffer(self.cuda.memory[self.addresses[name]], dtype, count)

    def _compute(self) -> None:
        a, b, total = (self._array(name, "float16", self.batch * 3) for name in ("a", "b", "total"))
        total[:] = a + b
        products = (a.astype("float32") * b).reshape(self.batch, 3)
        self._array("dot", "float32", self.batch)[:] = products.sum(axis=1)


class Plan:
    """The deserialized engine; built for batches of 1 to 4."""

    num_io_tensors = 4

    def __init__(self, cuda: Cuda) -> None:
        self.cuda = cuda

    def get_tensor_name(self, i: int) -> str:
        return ("a", "total", "b", "dot")[i]

    def get_tensor_mode(self, name: str) -> Mode:
        return Mode.INPUT if name in "ab" else Mode.OUTPUT

    def get_tensor_dtype(self, name: str) -> str:
        return "FLOAT" if name == "dot" else "HALF"

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (-1,) if name == "dot" else (-1, 3)

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        assert (name in "ab", profile) == (True, 0)
        return [(1, 3), (1, 3), (4, 3)]

    def create_execution_context(self) -> Context:
        return Context(self.cuda)


class ILogger:
    ERROR, WARNING, INFO = 1, 2, 3


def tensorrt(cuda: Cuda) -> ModuleType:
    """TensorRT 11.4: deserializing tells the log what is wrong, and there is no other check."""

    class Runtime:
        def __init__(self, logger: Any) -> None:
            self.logger = logger

        def deserialize_cuda_engine(self, plan: bytes) -> Plan | None:
            if plan == b"plan":
                return Plan(cuda)
            self.logger.log(
                ILogger.ERROR,
                "Error Code 6: The engine plan file is not compatible with this version of TensorRT, "
                "expecting library version 11.4.0 got\n10.9.0, please rebuild.",
            )
            return None

    module = ModuleType("tensorrt")
    names = {"HALF": np.float16, "FLOAT": np.float32}
    vars(module).update(
        __version__="11.4.0", ILogger=ILogger, Runtime=Runtime, TensorIOMode=Mode, nptype=names.__getitem__
    )
    return module


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cuda]:
    cuda = Cuda()
    for name in ("cuda", "cuda.bindings"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", cuda)
    monkeypatch.setitem(sys.modules, "tensorrt", tensorrt(cuda))
    yield cuda
    assert (cuda.memory, cuda.streams) == ({}, []), "something on the GPU was not freed"


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    (tmp_path / "model.engine").write_bytes(b"plan")
    return tmp_path / "model.engine"


def inputs(batch: int) -> tuple[np.ndarray, np.ndarray]:
    a = np.arange(3 * batch, dtype="float16").reshape(batch, 3)
    return a, (a + 1)[::-1]


@pytest.mark.usefixtures("cuda")
def test_batches_of_any_size_in_any_order(engine: Path) -> None:
    with open_runtime(engine, trust=True) as runtime:
        assert (runtime.engine, runtime.device) == ("TensorRT 11.4.0", "NVIDIA Stand-In")
        assert [str(spec) for spec in runtime.inputs] == ["a: float16 (?, 3)", "b: float16 (?, 3)"]
        assert [str(spec) for spec in runtime.outputs] == ["total: float16 (?, 3)", "dot: float32 (?,)"]
        results = [(batch, runtime.run(*inputs(batch))) for batch in (2, 1, 4, 3)]
    for batch, (total, dot) in results:
        a, b = inputs(batch)
        np.testing.assert_array_equal(total, a + b)
        np.testing.assert_array_equal(dot, (a.astype("float32") * b).sum(axis=1))


@pytest.mark.usefixtures("cuda")
def test_batch_that_the_engine_was_not_built_for(engine: Path) -> None:
    with open_runtime(engine, trust=True) as runtime:
        with pytest.raises(DataError, match=r"'a' of shapes \(1, 3\) to \(4, 3\)\. Received: \(5, 3\).*--max-batch"):
            runtime.run(*inputs(5))
        with pytest.raises(DataError, match=r"Received: float32"):
            runtime.run(*(x.astype("float32") for x in inputs(2)))


def test_memory_that_runs_out(cuda: Cuda, engine: Path) -> None:
    with open_runtime(engine, trust=True) as runtime:
        cuda.room = 8
        with pytest.raises(UserError, match=r"Received: out of memory \(cudaErrorMemoryAllocation\)"):
            runtime.run(*inputs(2))


@pytest.mark.usefixtures("cuda")
def test_engine_of_another_version(engine: Path) -> None:
    engine.write_bytes(b"old")
    with pytest.raises(
        StorageError, match=r"model\.engine.*expecting library version 11\.4\.0 got 10\.9\.0.*build-engine"
    ):
        open_runtime(engine, trust=True)


def test_cuda_python_is_missing(cuda: Cuda, engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert why_no_gpu() is None
    monkeypatch.setitem(sys.modules, cuda.__name__, None)
    assert "pip install cuda-python" in str(why_no_gpu())
    with pytest.raises(UserError, match="pip install cuda-python"):
        TensorRTRuntime(engine, engine=find_engine("tensorrt"), trust=True)
