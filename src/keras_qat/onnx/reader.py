"""ONNX files as they are read: opened in one place, with what each says about itself. Nothing is run."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import cast

import onnx
import onnx_ir as ir

from keras_qat.errors import StorageError
from keras_qat.files import is_file, is_folder, is_there
from keras_qat.onnx.stored import ExternalData, check_stored, without_external_data
from keras_qat.onnx.walk import PAIR, Operation, input_at, is_constant, name_of, operations_of
from keras_qat.text import shortened
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
        external: the external data, which may be missing.
    """

    path: Path
    model: ir.Model
    operations: tuple[Operation, ...]
    size_bytes: int
    external: tuple[ExternalData, ...] = ()

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
        return tuple(data.tensor for data in self.external if not data.present)

    def nodes(self, *op_types: str) -> list[ir.Node]:
        """All nodes of these types that have an output, in the order of the file."""
        return [node for node in self.model.graph if node.op_type in op_types and node.outputs]

    def refusal(self, *, infer_shapes: bool = False) -> str | None:
        """Why ONNX's checker refuses the file, `None` if it doesn't: https://onnx.ai/onnx/api/checker.html.

        Args:
            infer_shapes: whether to run strict shape inference too.
        """
        try:
            model: str | onnx.ModelProto = str(self.path)
            if self.external:
                model = without_external_data(_load(self.path))
            onnx.checker.check_model(model, full_check=infer_shapes)
        except Exception as error:  # noqa: BLE001  (the checker's errors have no public base class)
            return str(error)
        return None

    def require_data(self) -> None:
        """Refuse a file whose external data are missing, before an engine opens it.

        Raises:
            StorageError: If external data are missing, cut short, or no regular file.
        """
        missing = next((data for data in self.external if not data.present), None)
        if missing is not None:
            raise StorageError(
                f"The file's external data are missing or cut short. Received: {str(self.path)!r}, whose tensor "
                f"{missing.tensor!r} needs {missing.end} bytes of {str(missing.path)!r}. Copy that file to where the "
                "model lies, under the same name."
            )


def read_onnx_file(path: str | Path) -> OnnxFile:
    """Read an ONNX file, whichever tool wrote it.

    Args:
        path: the file.

    Raises:
        StorageError: If the file is missing, a folder, 2 GiB or larger, truncated, or not an ONNX model; if its graph
            has a cycle; or if a tensor can't be used, as one whose external data are outside the file's folder.

    Example:
        >>> read_onnx_file("nowhere.onnx")
        Traceback (most recent call last):
        keras_qat.errors.StorageError: There is no such file. Received: 'nowhere.onnx'. Give the path of an .onnx file.
    """
    path = Path(path)
    if not is_file(path):
        kinds = {"That is a folder": is_folder, "That is a pipe or device, not a file": is_there}
        what = next((text for text, check in kinds.items() if check(path)), "There is no such file")
        raise StorageError(f"{what}. Received: {str(path)!r}. Give the path of an .onnx file.")
    size = path.stat().st_size
    if size >= PROTOBUF_LIMIT:
        raise StorageError(
            f"The file is larger than protobuf can read, 2 GiB. Received: {str(path)!r}, {size / 1e9:.1f} GB. Save it "
            "with its weights beside it: onnx.save_model(model, path, save_as_external_data=True)."
        )
    try:
        proto = _load(path)
        folder, external = check_stored(proto, path)
        model = ir.from_proto(proto)
        ir.external_data.set_base_dir(model.graph, folder)
        _require_acyclic(model.graph, path)
        operations = tuple(operations_of(model.graph))
    except StorageError:
        raise
    except Exception as error:
        # The protobuf reader's exceptions have no public base class, and a damaged graph fails anywhere.
        raise StorageError(
            f"The file can't be read as an ONNX model: {_first_cause(error)}. Received: {str(path)!r}, "
            f"{size} bytes. Export it again; if it was copied, compare the sizes."
        ) from error
    if not (len(model.graph) or model.graph.inputs or model.graph.outputs):
        # Protobuf reads an empty file, and many others, as a message in which no field is set.
        raise StorageError(
            f"The file holds no ONNX graph. Received: {str(path)!r}, {size} bytes. Export it again; if it was copied, "
            "compare the sizes."
        )
    return OnnxFile(path, model, operations, size, external)


def _load(path: Path) -> onnx.ModelProto:
    return onnx.load(path, format="protobuf", load_external_data=False)


def _first_cause(error: BaseException) -> str:
    """What went wrong first: onnx-ir's own message says only in which graph."""
    while error.__cause__ is not None:
        error = error.__cause__
    return shortened(error)


def _require_acyclic(graph: ir.Graph, path: Path) -> None:
    """Refuse a graph that no engine can run, and in which a walk from node to node would not end."""
    nodes = list(ir.traversal.RecursiveGraphIterator(graph))
    sorter = TopologicalSorter({node: list(_producers(node)) for node in nodes})
    try:
        sorter.prepare()
    except CycleError as error:
        names = list(dict.fromkeys(map(name_of, error.args[1])))
        shown = " → ".join([*names[:3], "…"] if len(names) > 3 else [*names, names[0]])  # noqa: PLR2004
        raise StorageError(
            f"The file's graph has a cycle, so it can't be computed. Received: {str(path)!r} with {shown}. Export the "
            "model again."
        ) from error


def _producers(node: ir.Node) -> Iterator[ir.Node]:
    for value in node.inputs:
        producer = None if value is None else value.producer()
        if producer is not None:
            yield producer
