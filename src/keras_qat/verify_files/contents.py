"""What an ONNX file says of itself."""

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import onnx

from keras_qat.errors import StorageError
from keras_qat.types import Precision

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
