"""ONNX files as they are read: opened in one place, with what each says about itself. Nothing is run."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import onnx
import onnx_ir as ir

from keras_qat.errors import StorageError
from keras_qat.files import is_file, is_folder
from keras_qat.onnx.walk import PAIR, Operation, input_at, is_constant, is_present, operations_of
from keras_qat.types import Precision

PRECISION_KEY, TARGET_KEY = "keras_qat.precision", "keras_qat.target"
"""The keys in the metadata of every file that keras-qat writes."""

PROTOBUF_LIMIT = 2**31
"""A protobuf message of 2 GiB or more can't be read (https://protobuf.dev/programming-guides/proto-limits/)."""


@dataclass(frozen=True)
class OnnxFile:
    """A file that was read.

    Args:
        path: the file.
        model: its content; external data stay in their own file until they are needed.
        operations: the nodes that compute, in the order of the file.
        size_bytes: size of the file, without external data.
    """

    path: Path
    model: ir.Model
    operations: tuple[Operation, ...]
    size_bytes: int

    @property
    def metadata(self) -> Mapping[str, str]:
        """The texts that the file holds by key."""
        return self.model.metadata_props

    @property
    def precision(self) -> Precision:
        """The floating-point type of whatever is not quantized; fp32 unless keras-qat wrote something else into it."""
        return cast("Precision", self.metadata.get(PRECISION_KEY, "fp32"))

    @property
    def target(self) -> str:
        """The target that keras-qat wrote the file for; "" if it did not."""
        return self.metadata.get(TARGET_KEY, "")

    @property
    def opset(self) -> int | None:
        """The version of ONNX's own operators; `None` if the file uses none of them."""
        imports = self.model.graph.opset_imports
        return imports.get("", imports.get("ai.onnx"))

    @property
    def pairs(self) -> int:
        """The number of computed tensors with a QuantizeLinear; those of stored weights don't count."""
        values = (input_at(node, 0) for node in self.nodes("QuantizeLinear"))
        return sum(value is not None and not is_constant(value) for value in values)

    @property
    def quantized(self) -> bool:
        """Whether the file holds a Q/DQ node or an operator that computes in integers."""
        return any(op.integer for op in self.operations) or bool(self.nodes(*PAIR))

    @property
    def weighted(self) -> tuple[Operation, ...]:
        """The convolutions and the matrix products with stored weights."""
        return tuple(op for op in self.operations if op.weighted)

    @property
    def missing_data(self) -> tuple[str, ...]:
        """Names of the tensors whose external data are missing or truncated."""
        return tuple(
            str(name)
            for name, value in self.model.graph.initializers.items()
            if value.const_value is not None and not is_present(value.const_value)
        )

    def nodes(self, *op_types: str) -> list[ir.Node]:
        """All nodes of these types that have an output, in the order of the file."""
        return [node for node in self.model.graph if node.op_type in op_types and node.outputs]

    def refusal(self, *, infer_shapes: bool = False) -> str | None:
        """Why ONNX's checker refuses the file, `None` if it doesn't: https://onnx.ai/onnx/api/checker.html.

        Args:
            infer_shapes: whether to run strict shape inference too.
        """
        try:
            onnx.checker.check_model(str(self.path), full_check=infer_shapes)
        except Exception as error:  # noqa: BLE001  (the checker's errors have no public base class)
            return str(error)
        return None


def read_onnx_file(path: str | Path) -> OnnxFile:
    """Read an ONNX file, whichever tool wrote it.

    Args:
        path: the file.

    Raises:
        StorageError: If the file is missing, a folder, 2 GiB or larger, truncated, or not an ONNX model.

    Example:
        >>> read_onnx_file("nowhere.onnx")
        Traceback (most recent call last):
        keras_qat.errors.StorageError: There is no such file. Received: 'nowhere.onnx'. Give the path of an .onnx file.
    """
    path = Path(path)
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
