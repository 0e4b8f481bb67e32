"""ONNX → OpenVINO's IR: the graph in `.xml`, the weights in `.bin`."""

from pathlib import Path

from keras_qat.errors import StorageError, UserError
from keras_qat.runtimes.openvino.core import import_openvino, read
from keras_qat.runtimes.openvino.runtime import version
from keras_qat.runtimes.options import BuildOptions, Built
from keras_qat.storage import atomic_path


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
