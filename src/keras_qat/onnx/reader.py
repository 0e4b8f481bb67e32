"""An ONNX file as the checks read it; nothing of it is run.

What an ONNX file says of itself.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import onnx
import onnx_ir as ir

from keras_qat.errors import StorageError
from keras_qat.files import is_file, is_folder
from keras_qat.onnx.walk import Operation, operations_of, present
from keras_qat.types import Precision

PROTOBUF_LIMIT = 2**31
"""A protobuf message of 2 GiB or more can't be read (https://protobuf.dev/programming-guides/proto-limits/)."""


@dataclass(frozen=True)
class OnnxFile:
    """A file that was read.

    Args:
        path: the file.
        model: its content.
        operations: the nodes that compute, in the order of the file.
        size_bytes: of the file, external data not counted.
    """

    path: Path
    model: ir.Model
    operations: tuple[Operation, ...]
    size_bytes: int

    @property
    def quantized(self) -> bool:
        """Whether anything in it is in integers by a Q/DQ pair or by an integer operator."""
        return any(op.integer for op in self.operations) or any(self.nodes("QuantizeLinear", "DequantizeLinear"))

    def nodes(self, *op_types: str) -> list[ir.Node]:
        """All nodes of these types that have an output, in the order of the file."""
        return [node for node in self.model.graph if node.op_type in op_types and node.outputs]

    @property
    def missing_data(self) -> tuple[str, ...]:
        """Names of the tensors whose external data are missing or cut short."""
        return tuple(
            str(name)
            for name, value in self.model.graph.initializers.items()
            if value.const_value is not None and not present(value.const_value)
        )


def read_onnx_file(path: Path) -> OnnxFile:
    """Read a file.

    Raises:
        StorageError: it is missing, a folder, larger than protobuf can read, or no ONNX model.
    """
    if not is_file(path):
        what = "That is a folder" if is_folder(path) else "There is no such file"
        raise StorageError(f"{what}. Received: {str(path)!r}. Give the path of an .onnx file.")
    size = path.stat().st_size
    if size >= PROTOBUF_LIMIT:
        raise StorageError(
            f"The file is larger than protobuf can read, 2 GiB. Received: {str(path)!r}, {size / 1e9:.1f} GB. Save it "
            "with its weights beside it: onnx.save_model(model, path, save_as_external_data=True)."
        )
    try:
        model = ir.load(path)
        operations = tuple(operations_of(model.graph))
    except Exception as error:
        # The protobuf reader's exceptions have no public base class, and a damaged graph fails anywhere.
        raise StorageError(
            f"The file can't be read as an ONNX model: {' '.join(str(error).split())[:200]}. Received: {str(path)!r}, "
            f"{size} bytes. Export it again; if it was copied, compare the sizes."
        ) from error
    if not (len(model.graph) or model.graph.inputs or model.graph.outputs):
        # Protobuf reads an empty file, and many others, as a message in which no field is set.
        raise StorageError(
            f"The file holds no ONNX graph. Received: {str(path)!r}, {size} bytes. Export it again; if it was copied, "
            "compare the sizes."
        )
    return OnnxFile(path, model, operations, size)


_PRECISION = "keras_qat.precision"


@dataclass(frozen=True)
class Contents:
    """What matters for a look from outside.

    Args:
        pairs: activations with a Q/DQ pair.
        precision: of what isn't quantized.
        opset: ONNX operator set.
    """

    pairs: int
    precision: Precision
    opset: int


def read_contents(path: Path) -> Contents:
    """Read an ONNX file's own account.

    Raises:
        StorageError: there is no such file, or it is no ONNX file.
    """
    if not path.is_file():
        raise StorageError(f"There is no ONNX file of that name. Received: {str(path)!r}. Export the model first.")
    try:
        file = onnx.load(path, load_external_data=False)
    except Exception as error:
        # The protobuf reader's exceptions have no public base class.
        raise StorageError(f"Can't read the ONNX file. Received: {str(path)!r}: {error}. Export it again.") from error
    metadata = {entry.key: entry.value for entry in file.metadata_props}
    # Weights are stored as integers, so only activations are quantized in the file.
    pairs = sum(node.op_type == "QuantizeLinear" for node in file.graph.node)
    opset = max((entry.version for entry in file.opset_import if entry.domain in {"", "ai.onnx"}), default=0)
    return Contents(pairs, cast("Precision", metadata.get(_PRECISION, "fp32")), opset)
