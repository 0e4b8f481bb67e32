"""What an engine is: the facts about a program that runs model files. `keras_qat.runtimes` attaches the functions."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Need = Literal["nothing", "backend", "gpu", "cuda provider"]
"""What must be there beside an engine's package: a backend of Keras, an NVIDIA GPU with cuda-python, or an ONNX Runtime
that was built with CUDA."""


@dataclass(frozen=True)
class Engine:
    """One engine.

    Args:
        name: as in `--engine`.
        title: as its makers write it.
        opens: what it runs and where, in words.
        suffixes: the suffixes of the files that it opens; files that it builds get the first. Empty if it opens
            folders.
        module: the Python module that is imported to run it.
        packages: the packages any of which provides that module.
        install: the arguments of `pip install`.
        needs: what must be there beside the package to run it.
        magic: the first bytes of its files, if another engine's have the same suffix.
        takes_threads: whether the number of threads can be set for one model.
        ahead_of_time: whether it builds files without the GPU that they are for. TensorRT times kernels on the GPU of
            the machine; TensorRT-RTX chooses them when the file is loaded.
    """

    name: str
    title: str
    opens: str
    suffixes: tuple[str, ...]
    module: str
    packages: tuple[str, ...]
    install: str
    needs: Need = "nothing"
    magic: bytes = b""
    takes_threads: bool = False
    ahead_of_time: bool = False

    def accepts(self, path: Path) -> bool:
        """Whether a path is a file of its kind, or a folder if it opens folders."""
        folder = path.is_dir()
        return not folder and path.suffix in self.suffixes if self.suffixes else folder
