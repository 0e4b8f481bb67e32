"""The contract of all engines: a runtime with named inputs and outputs, and what an engine file is built for."""

import importlib
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, TracebackType

import numpy as np
from typing_extensions import Self

from keras_qat.errors import (
    MOST_IMAGES_AT_ONCE,
    MOST_THREADS,
    DataError,
    KerasQATError,
    UserError,
    require_whole,
    settle_numbers,
)
from keras_qat.targets import Engine
from keras_qat.text import shortened

RunGraph = Callable[[Mapping[str, np.ndarray]], Sequence[np.ndarray]]
"""{name: array} of all inputs → the outputs, in the order of the file."""


@dataclass(frozen=True)
class TensorSpec:
    """What an engine reads or writes under one name.

    Args:
        name: name of the input or output.
        shape: its shape, `None` for a dynamic dimension such as the batch.
        dtype: its NumPy dtype.

    Example:
        >>> str(TensorSpec("image", (None, 224, 224, 3), np.dtype("float32")))
        'image: float32 (?, 224, 224, 3)'
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: np.dtype

    def __str__(self) -> str:
        sizes = ", ".join("?" if size is None else str(size) for size in self.shape)
        return f"{self.name}: {self.dtype} ({sizes}{',' if len(self.shape) == 1 else ''})"

    def fits(self, array: np.ndarray) -> bool:
        """Whether an array has this dtype, this number of dimensions, and the size of each fixed dimension."""
        sizes = zip(self.shape, array.shape, strict=False)
        return (
            array.dtype == self.dtype
            and array.ndim == len(self.shape)
            and all(fixed is None or fixed == size for fixed, size in sizes)
        )


_RUN_REMEDY = (
    "Try a smaller batch, close what else needs memory, or name another engine; `keras-qat doctor` examines an ONNX "
    "file."
)


@contextmanager
def engine_failure(
    what: str, source: str, kind: type[UserError], remedy: str, inputs: tuple[np.ndarray, ...] = ()
) -> Iterator[None]:
    """Turn whatever an engine raises within the block into an error that users can read.

    Engines raise exceptions of their own, which have no common base class: those of ONNX Runtime derive from
    `Exception`, OpenVINO's are `RuntimeError`s, TensorFlow has a class for each code.

    Args:
        what: what failed.
        source: the file.
        kind: the class of the error.
        remedy: what to do.
        inputs: what the engine was fed.

    Raises:
        UserError: Of that kind, if the block raises an exception that is not one of keras-qat's own.

    Example:
        >>> with engine_failure("The engine failed", "int8.onnx", UserError, "Export it again."):
        ...     raise RuntimeError("no kernel for Conv_3")
        Traceback (most recent call last):
        keras_qat.errors.UserError: The engine failed: no kernel for Conv_3. Received: 'int8.onnx'. Export it again.
    """
    try:
        yield
    except KerasQATError:
        raise
    except Exception as error:
        reason = shortened(error).rstrip(".")
        fed = f", fed with {', '.join(map(_received, inputs))}" if inputs else ""
        raise kind(f"{what}: {reason}. Received: {source!r}{fed}. {remedy}") from error


class Runtime(ABC):
    """A loaded model that computes arrays from arrays; a context manager that closes itself.

    Args:
        engine: the engine and its version, such as `ONNX Runtime 1.32.0`.
        device: where it runs, such as `CPU, 2 threads`.
        inputs: what `run` takes, in order.
        outputs: what `run` returns, in order.

    Attributes:
        source: the file or folder that was opened, for messages; "the model" if it came from memory.
    """

    source: str = "the model"

    def __init__(
        self, engine: str, device: str, inputs: tuple[TensorSpec, ...], outputs: tuple[TensorSpec, ...]
    ) -> None:
        self.engine = engine
        self.device = device
        self.inputs = inputs
        self.outputs = outputs
        self._closed = False

    def run(self, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        """Compute the outputs of one batch.

        Args:
            *inputs: one array for each of `self.inputs`, of its dtype and shape; nothing is converted.

        Returns:
            One new array for each of `self.outputs`.

        Raises:
            DataError: If the number of inputs, a shape or a dtype is wrong.
            UserError: If the runtime is closed, or the engine fails, as it does without memory for so large a batch.
        """
        if self._closed:
            raise UserError(f"This model is closed. Received: a run in {self.engine} after close(). Open it again.")
        if len(inputs) != len(self.inputs):
            raise DataError(
                f"The model reads {len(self.inputs)} inputs ({'; '.join(map(str, self.inputs))}). "
                f"Received: {len(inputs)} arrays. Give one array for each input."
            )
        for spec, array in zip(self.inputs, inputs, strict=True):
            if not isinstance(array, np.ndarray) or not spec.fits(array):
                raise DataError(
                    f"Input {spec.name!r} doesn't fit the model, which reads {spec}. Received: {_received(array)}. "
                    "Give a NumPy array of that dtype and shape."
                )
        with engine_failure(f"{self.engine} failed to run the model", self.source, UserError, _RUN_REMEDY, inputs):
            return self._run(inputs)

    def close(self) -> None:
        """Free what the engine holds. A second call does nothing."""
        if not self._closed:
            self._closed = True
            self._close()

    @abstractmethod
    def _run(self, inputs: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        """Implement `run` for inputs that fit."""

    def _close(self) -> None:  # noqa: B027
        """Implement `close`; called once."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True)
class BatchRange:
    """The batch sizes that an engine file takes.

    Args:
        min: the smallest.
        opt: the one that it is fastest at.
        max: the largest.

    Raises:
        UserError: If a size isn't a whole number, or 1 <= min <= opt <= max does not hold.

    Example:
        >>> BatchRange(max=32)
        BatchRange(min=1, opt=1, max=32)
    """

    min: int = 1
    opt: int = 1
    max: int = 8

    def __post_init__(self) -> None:
        """Check the order of the sizes."""
        sizes = (1, MOST_IMAGES_AT_ONCE)
        settle_numbers(self, min=sizes, opt=sizes, max=sizes)
        if not self.min <= self.opt <= self.max:
            raise UserError(
                "Batch sizes must be 1 <= min <= opt <= max. "
                f"Received: min {self.min}, opt {self.opt}, max {self.max}. Put them in order."
            )

    @classmethod
    def of(cls, least: int | None, fastest: int | None, most: int | None) -> "BatchRange | None":
        """The range of the sizes that are given, the others chosen to fit; `None` if none is given.

        Example:
            >>> BatchRange.of(None, 16, None)
            BatchRange(min=1, opt=16, max=16)
        """
        if (least, fastest, most) == (None, None, None):
            return None
        least = cls.min if least is None else least
        fastest = least if fastest is None else fastest
        return cls(least, fastest, max(cls.max, fastest) if most is None else most)


@dataclass(frozen=True)
class BuildOptions:
    """What an engine file is built for.

    Args:
        compute_capabilities: of the GPUs, such as "8.6"; the engine chooses if there are none.
        batch: the batch sizes, for an ONNX file whose batch is dynamic; the engine chooses if not given.
    """

    compute_capabilities: tuple[str, ...] = ()
    batch: BatchRange | None = None


@dataclass(frozen=True)
class Built:
    """What a builder wrote.

    Args:
        version: the engine and its version.
        files: all files that were written; the first is the one to open.
        warnings: the warnings in the engine's log.
    """

    version: str
    files: tuple[Path, ...]
    warnings: tuple[str, ...]


def threads_or_all(threads: int | None) -> int:
    """The number of threads of one inference.

    Args:
        threads: the number that the user chose; `None` for all processors.

    Raises:
        UserError: If it isn't a whole number from 1 to 1024.

    Example:
        >>> threads_or_all(2)
        2
    """
    return os.cpu_count() or 1 if threads is None else require_whole("threads", threads, most=MOST_THREADS)


def import_optional(module: str, *, title: str, install: str) -> ModuleType:
    """Import a module that not every user has installed.

    Args:
        module: its dotted name.
        title: what users call it.
        install: the arguments of `pip install`.

    Raises:
        UserError: If it is not installed or does not load; the message says how to install it.

    Example:
        >>> import_optional("json", title="JSON", install="json").dumps([])
        '[]'
    """
    try:
        return importlib.import_module(module)
    except (ImportError, OSError) as error:
        # OSError: the Python package is there, but a shared library that it loads is not.
        raise UserError(
            f"{title} is not installed, or doesn't load. Received: {error}. Install it: pip install {install}"
        ) from error


def import_engine(engine: Engine) -> ModuleType:
    """The Python module of an engine.

    Raises:
        UserError: If it is not installed or does not load; the message says how to install it.
    """
    return import_optional(engine.module, title=engine.title, install=engine.install)


def _received(array: object) -> str:
    return f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
