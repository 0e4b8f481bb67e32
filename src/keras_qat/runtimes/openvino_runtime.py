"""OpenVINO on the CPU, and its own file format, IR: the graph in `.xml`, the weights in `.bin`."""

import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_qat import files, machine, onnx, targets
from keras_qat.errors import StorageError, UserError
from keras_qat.runtimes.runtime import BuildOptions, Built, RunGraph, Runtime, TensorSpec, import_engine, threads_or_all

_IR, _WEIGHTS = ".xml", ".bin"


class OpenVINORuntime(Runtime):
    """Runs an ONNX or IR file on the CPU, with the least latency of one request.

    By default OpenVINO's CPU plugin computes in bfloat16 on processors that have it
    (https://docs.openvino.ai/2026/openvino-workflow/running-inference/optimize-inference/precision-control.html). A
    file must compute what was simulated, so that whatever is not quantized is float32 here.

    Args:
        path: the `.onnx`, or the `.xml` with its `.bin` beside it.
        threads: threads of one inference; all cores if not given.

    Raises:
        StorageError: If the file is missing or not a valid model.
        UserError: If OpenVINO is not installed.
    """

    def __init__(self, path: str | Path, *, threads: int | None = None) -> None:
        openvino = import_engine(targets.find_engine("openvino"))
        threads = threads_or_all(threads)
        core = openvino.Core()
        model = _read(core, Path(path))
        inputs, outputs = _names(model.inputs), _names(model.outputs)
        compiled = core.compile_model(model, "CPU", _config(threads))
        super().__init__(
            _version(openvino),
            f"CPU, {threads} threads",
            tuple(map(_spec, inputs, compiled.inputs)),
            tuple(map(_spec, outputs, compiled.outputs)),
        )
        self._request = compiled.create_infer_request()

    def _run(self, inputs: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        results = self._request.infer(list(inputs), share_inputs=True, share_outputs=False)
        return tuple(results.values())

    def _close(self) -> None:
        del self._request


def open_graph(content: bytes) -> RunGraph:
    """Open an ONNX file in memory, in the arithmetic of `OpenVINORuntime`."""
    core = import_engine(targets.find_engine("openvino")).Core()
    model = core.read_model(content)
    names = _names(model.inputs)
    compiled = core.compile_model(model, "CPU", _config(threads_or_all(None)))

    def run(inputs: Mapping[str, np.ndarray]) -> Sequence[np.ndarray]:
        results = compiled([inputs[name] for name in names])
        return [np.array(results[port]) for port in compiled.outputs]

    return run


def _config(threads: int) -> dict[str, Any]:
    return {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}


def build_ir(source: Path, output: Path, options: BuildOptions) -> Built:
    """Convert an ONNX file to IR, with every number as the ONNX file has it.

    Args:
        source: the ONNX file.
        output: the `.xml`; the `.bin` is written beside it.
        options: must be the defaults, as IR takes any batch on any CPU.

    Raises:
        StorageError: If the ONNX file can't be read, or the IR can't be written.
        UserError: If OpenVINO is not installed, or an option is given.
    """
    if options != BuildOptions():
        raise UserError(
            f"OpenVINO's IR takes any batch and runs on any CPU. Received: {options}. "
            "Leave out batch sizes and compute capabilities."
        )
    if output.suffix != _IR:
        raise UserError(f"OpenVINO's IR is named .xml. Received: {str(output)!r}. Name it {output.stem}.xml.")
    openvino = import_engine(targets.find_engine("openvino"))
    model = _read(openvino.Core(), source)
    weights = output.with_suffix(_WEIGHTS)
    with files.atomic_path(output) as graph:
        temporary_weights = graph.with_suffix(_WEIGHTS)
        try:
            # The default would round the weights to float16.
            openvino.save_model(model, graph, compress_to_fp16=False)
            # A graph beside another graph's weights would run and compute something else. Therefore the old graph is
            # removed first, and the new one is moved last.
            files.require_replaceable(weights)
            output.unlink(missing_ok=True)
            files.commit(temporary_weights, weights)
        except RuntimeError as error:
            raise StorageError(
                f"OpenVINO can't write the IR. Received: {str(output)!r}: {error}. Look for room on the disk."
            ) from error
        finally:
            temporary_weights.unlink(missing_ok=True)
    return Built(_version(openvino), (output, weights), ())


def why_saturated() -> str | None:
    """Why OpenVINO's INT8 results differ on this machine from those that a file says, or `None` if they don't.

    Its kernels for CPUs without VNNI add pairs of products in 16 bits. The SNR of ResNet50's scores against the
    simulated ones fell from 32 to 10 dB, and one class in five changed (OpenVINO 2026.4 on AVX2).
    https://docs.openvino.ai/latest/pot_saturation_issue.html
    """
    if platform.machine().lower() not in machine.X86 or machine.read_cpu().vnni is not False:
        return None
    return "its INT8 kernels saturate on a CPU without VNNI"


def _read(core: Any, path: Path) -> Any:
    if path.suffix != _IR:
        # OpenVINO tries a corrupt file as one of every other kind, and complains of each on the terminal.
        onnx.read_onnx_file(path).require_data()
    elif os.path.lexists(path.with_suffix(_WEIGHTS)):
        # OpenVINO would wait for a pipe, and a link to itself ends the process.
        files.require_engine_model(path.with_suffix(_WEIGHTS))
    try:
        return core.read_model(path)
    except RuntimeError as error:
        raise StorageError(
            f"OpenVINO can't read the model. Received: {str(path)!r}: {' '.join(str(error).split())}. "
            "Export the file again, or build it again with `keras-qat build-engine`."
        ) from error


def _version(openvino: Any) -> str:
    """The engine and its version, without the build's hash."""
    return f"OpenVINO {openvino.__version__.partition('-')[0]}"


def _names(ports: Sequence[Any]) -> list[str]:
    """The names of inputs or outputs in the file.

    Compiled ports have more of them where OpenVINO removed an operation, such as two transpositions that undo each
    other: then `any_name` may be that of a tensor inside.
    """
    return [port.any_name for port in ports]


def _spec(name: str, port: Any) -> TensorSpec:
    shape = tuple(None if size.is_dynamic else size.get_length() for size in port.partial_shape)
    return TensorSpec(name, shape, np.dtype(port.element_type.to_dtype()))
