"""TensorRT and TensorRT-RTX differ in a few facts; the rest of their Python API is the same."""

from dataclasses import dataclass
from typing import Any

from keras_qat.runtimes.optional import import_optional


@dataclass(frozen=True)
class Flavor:
    """One of the two.

    Args:
        name: of the engine, and of the extra that installs it.
        title: as NVIDIA writes it.
        module: the Python package.
        ahead_of_time: whether it builds for GPUs that it is told, without one. TensorRT times kernels on the GPU of
            the machine; TensorRT-RTX chooses them when the engine is loaded.
    """

    name: str
    title: str
    module: str
    ahead_of_time: bool

    def load(self) -> Any:
        """The Python package.

        Raises:
            UserError: it isn't installed.
        """
        return import_optional(self.module, title=self.title, install=f"'keras-qat[{self.name}]'")

    def version(self, trt: Any) -> str:
        """The engine and its version."""
        return f"{self.title} {trt.__version__}"


TENSORRT = Flavor("tensorrt", "TensorRT", "tensorrt", ahead_of_time=False)
TENSORRT_RTX = Flavor("tensorrt-rtx", "TensorRT-RTX", "tensorrt_rtx", ahead_of_time=True)
