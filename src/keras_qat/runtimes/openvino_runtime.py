"""The `openvino` package and its reader of files.

OpenVINO on the CPU.

ONNX → OpenVINO's IR: the graph in `.xml`, the weights in `.bin`.
"""

import os
from pathlib import Path
from typing import Any

import numpy as np

from keras_qat.errors import StorageError, UserError
from keras_qat.files import atomic_path
from keras_qat.onnx import read_onnx_file
from keras_qat.runtimes.runtime import BuildOptions, Built, Runtime, TensorSpec, import_optional

_IR = ".xml"


def import_openvino() -> Any:
    """The package.

    Raises:
        UserError: it isn't installed.
    """
    return import_optional("openvino", title="OpenVINO", install="'keras-qat[openvino]'")


def read(core: Any, path: Path) -> Any:
    """Read an ONNX or IR file.

    Args:
        core: an `openvino.Core`.
        path: of the `.onnx`, or of the `.xml` with its `.bin` beside it.

    Raises:
        StorageError: it is missing or no valid model.
    """
    if path.suffix != _IR:
        # OpenVINO tries a corrupt file as one of every other kind, and complains of each on the terminal.
        read_onnx_file(path)
    try:
        return core.read_model(path)
    except RuntimeError as error:
        raise StorageError(
            f"OpenVINO can't read the model. Received: {str(path)!r}: {' '.join(str(error).split())}. "
            "Export the file again, or build it again with `keras-qat build-engine`."
        ) from error


def version(openvino: Any) -> str:
    """The engine and its version, without the build's hash."""
    return f"OpenVINO {openvino.__version__.partition('-')[0]}"


class OpenVINORuntime(Runtime):
    """Runs an ONNX or IR file on the CPU, for the least latency of one request.

    OpenVINO's CPU plugin computes in bfloat16 where the processor has it, unless told otherwise
    (https://docs.openvino.ai/2026/openvino-workflow/running-inference/optimize-inference/precision-control.html). A
    file must compute what was simulated, so what isn't quantized is float32 here.

    Args:
        path: the `.onnx`, or the `.xml` with its `.bin` beside it.
        threads: threads of one inference; all cores if not given.

    Raises:
        StorageError: the file is missing or no valid model.
        UserError: OpenVINO isn't installed.
    """

    def __init__(self, path: str | Path, *, threads: int | None = None) -> None:
        openvino = import_openvino()
        threads = threads or os.cpu_count() or 1
        core = openvino.Core()
        config = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": "f32",
        }
        compiled = core.compile_model(read(core, Path(path)), "CPU", config)
        super().__init__(
            version(openvino),
            f"CPU, {threads} threads",
            tuple(map(_spec, compiled.inputs)),
            tuple(map(_spec, compiled.outputs)),
        )
        self._request = compiled.create_infer_request()

    def _run(self, inputs: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        results = self._request.infer(list(inputs), share_inputs=True, share_outputs=False)
        return tuple(results.values())

    def _close(self) -> None:
        del self._request


def _spec(port: Any) -> TensorSpec:
    shape = tuple(None if size.is_dynamic else size.get_length() for size in port.partial_shape)
    return TensorSpec(port.any_name, shape, np.dtype(port.element_type.to_dtype()))


def build_ir(source: Path, output: Path, options: BuildOptions) -> Built:
    """Write the IR, with every number as the ONNX file has it.

    Args:
        source: the ONNX file.
        output: the `.xml`; the `.bin` goes beside it.
        options: must be left at their defaults, as IR takes any batch on any CPU.

    Raises:
        StorageError: the ONNX file can't be read, or the IR not written.
        UserError: OpenVINO isn't installed, or an option doesn't apply to it.
    """
    if options != BuildOptions():
        raise UserError(
            f"OpenVINO's IR takes any batch and runs on any CPU. Received: {options}. "
            "Leave out batch sizes and compute capabilities."
        )
    if output.suffix != ".xml":
        raise UserError(f"OpenVINO's IR is named .xml. Received: {str(output)!r}. Name it {output.stem}.xml.")
    openvino = import_openvino()
    model = read(openvino.Core(), source)
    weights = output.with_suffix(".bin")
    with atomic_path(output) as graph:
        half = graph.with_suffix(".bin")
        try:
            # The default would round the weights to float16.
            openvino.save_model(model, graph, compress_to_fp16=False)
            # A graph beside another graph's weights would run and be wrong: the old one goes first, the new one last.
            output.unlink(missing_ok=True)
            half.replace(weights)
        except RuntimeError as error:
            raise StorageError(
                f"OpenVINO can't write the IR. Received: {str(output)!r}: {error}. Look for room on the disk."
            ) from error
        finally:
            half.unlink(missing_ok=True)
    return Built(version(openvino), (output, weights), ())
