"""ONNX → a serialized engine ("plan") of TensorRT or TensorRT-RTX, and their log, kept instead of printed.

The two have the same Python API. The network is strongly typed: every tensor has the type that the file gives it, and
the Q/DQ pairs alone say what is INT8. TensorRT 11 knows no other kind of network; TensorRT 10 needs the flag
(https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/advanced.html, "Strongly Typed Networks").
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from keras_qat import files, onnx, targets
from keras_qat.errors import StorageError, UnsupportedModelError, UserError
from keras_qat.runtimes.runtime import BatchRange, BuildOptions, Built, import_engine
from keras_qat.text import one_line

_AHEAD_OF_TIME = "tensorrt-rtx"
"""The engine that builds without a GPU."""


@dataclass(frozen=True)
class Message:
    """One entry of the log.

    Args:
        severity: an `ILogger.Severity`, from 0, an internal error, to 4, verbose.
        text: the text, on one line.
    """

    severity: int
    text: str


@dataclass(frozen=True)
class Log:
    """The log of one step of work.

    Args:
        trt: the Python package.
        messages: all entries so far.
    """

    trt: Any
    messages: list[Message]

    def warnings(self) -> tuple[str, ...]:
        """The warnings, each once."""
        level = int(self.trt.ILogger.WARNING)
        return tuple(dict.fromkeys(m.text for m in self.messages if m.severity == level))

    def errors(self) -> tuple[str, ...]:
        """The errors, each once."""
        return self._up_to(self.trt.ILogger.ERROR)

    def notes(self) -> tuple[str, ...]:
        """Everything except verbose messages, each once."""
        return self._up_to(self.trt.ILogger.INFO)

    def _up_to(self, level: Any) -> tuple[str, ...]:
        return tuple(dict.fromkeys(m.text for m in self.messages if m.severity <= int(level)))


@contextmanager
def recorded(trt: Any) -> Iterator[tuple[Any, Log]]:
    """The logger to build or open with, and the log of what happens within the block.

    TensorRT keeps the first logger of a process as long as any builder or runtime lives, and ignores all others.
    Therefore there is one, and each block empties it.
    """
    logger, messages = _collector(trt)
    messages.clear()
    log = Log(trt, [])
    try:
        yield logger, log
    finally:
        log.messages.extend(messages)


@cache
def _collector(trt: Any) -> tuple[Any, list[Message]]:
    messages: list[Message] = []

    def keep(_: Any, severity: Any, text: str) -> None:
        # TensorRT-RTX writes the version numbers of a foreign engine as characters.
        line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text.strip().replace("\n", " "))
        messages.append(Message(int(severity), line.rstrip(".")))

    return type("Collector", (trt.ILogger,), {"log": keep})(), messages


def engine_version(engine: targets.Engine, trt: Any) -> str:
    """The engine and its version."""
    return f"{engine.title} {trt.__version__}"


def build_plan(engine: targets.Engine, source: Path, output: Path, options: BuildOptions) -> Built:
    """Build an engine file and write it.

    Args:
        engine: TensorRT or TensorRT-RTX.
        source: the ONNX file.
        output: the engine file.
        options: GPUs and batch sizes; batch 1 to 8, fastest at 1, if not given.

    Raises:
        StorageError: If the ONNX file is corrupt, or the engine file can't be written.
        UnsupportedModelError: If the engine can't run the network.
        UserError: If the package is not installed, it needs a GPU and there is none, or an option is wrong.
    """
    if options.compute_capabilities and not engine.ahead_of_time:
        raise UserError(
            f"{engine.title} builds for the GPU of this machine only. "
            f"Received: compute capability {', '.join(options.compute_capabilities)}. "
            f"Leave it out, or build with --engine {_AHEAD_OF_TIME}."
        )
    onnx.read_onnx_file(source).require_data()
    trt = import_engine(engine)
    with recorded(trt) as (logger, log):
        plan = _build(engine, trt, logger, source, options)
    if plan is None:
        raise UnsupportedModelError(
            f"{engine.title} can't build an engine from {str(source)!r}. Received: {'; '.join(log.errors())}. "
            "Build for other compute capabilities, or export it with target tensorrt."
        )
    with files.atomic_path(output) as temporary:
        temporary.write_bytes(plan)
    files.remember_written(output)
    return Built(engine_version(engine, trt), (output,), log.warnings())


def _build(engine: targets.Engine, trt: Any, logger: Any, source: Path, options: BuildOptions) -> Any:
    """The serialized engine, or `None` if it can't be built; the log says why."""
    try:
        builder = trt.Builder(logger)
    except TypeError as error:
        # pybind11 raises this for a null pointer, which TensorRT returns without a driver or GPU.
        raise UserError(
            f"{engine.title} can't start here. Received: {error}. It needs an NVIDIA GPU and its driver; "
            f"--engine {_AHEAD_OF_TIME} builds without."
        ) from error
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(source)):
        raise _parse_failure(engine, trt, source, [parser.get_error(i) for i in range(parser.num_errors)])
    config = builder.create_builder_config()
    if options.compute_capabilities:
        _set_compute_capabilities(trt, config, options.compute_capabilities)
    inputs = [network.get_input(i) for i in range(network.num_inputs)]
    if any(-1 in tuple(tensor.shape) for tensor in inputs):
        profile = builder.create_optimization_profile()
        for tensor in inputs:
            _set_batch(profile, tensor, options.batch or BatchRange())
        config.add_optimization_profile(profile)
    elif options.batch is not None:
        raise UserError(
            f"The file's batch is fixed. Received: {options.batch} for inputs of shape "
            f"{', '.join(str(tuple(tensor.shape)) for tensor in inputs)}. Leave out the batch sizes."
        )
    return builder.build_serialized_network(network, config)


def _set_compute_capabilities(trt: Any, config: Any, names: tuple[str, ...]) -> None:
    special = {"NONE", "CURRENT"}
    known = {
        f"{name[2:-1]}.{name[-1]}": value
        for name, value in trt.ComputeCapability.__members__.items()
        if name not in special
    }
    names = tuple(dict.fromkeys(names))
    for name in names:
        if name not in known:
            raise UserError(f"Unknown compute capability. Received: {name!r}. Choose among: {', '.join(known)}.")
    config.num_compute_capabilities = len(names)
    for i, name in enumerate(names):
        if not config.set_compute_capability(known[name], i):
            raise UserError(
                f"The engine refuses compute capability {name}. Received: {', '.join(names)}. Leave it out."
            )


def _set_batch(profile: Any, tensor: Any, batch: BatchRange) -> None:
    first, *others = tensor.shape
    if -1 in others:
        raise UnsupportedModelError(
            f"Only the batch may be dynamic in an engine. Received: input {tensor.name!r} of shape "
            f"{tuple(tensor.shape)}. Export the model with a fixed image size."
        )
    sizes = (batch.min, batch.opt, batch.max) if first == -1 else (first,) * 3
    profile.set_shape(tensor.name, *((size, *others) for size in sizes))


def _parse_failure(engine: targets.Engine, trt: Any, source: Path, errors: list[Any]) -> UserError:
    messages = "; ".join(one_line(f"{e.node_operator()} {e.node_name()}: {e.desc()}") for e in errors)
    if any(error.code() == trt.ErrorCode.MODEL_DESERIALIZE_FAILED for error in errors):
        return StorageError(f"{str(source)!r} is no valid ONNX file. Received: {messages}. Export it again.")
    return UnsupportedModelError(
        f"{engine.title} can't read {str(source)!r}. Received: {messages}. Export it with target tensorrt."
    )
