"""The `openvino` package and its reader of files."""

from pathlib import Path
from typing import Any

import onnx

from keras_qat.errors import StorageError
from keras_qat.runtimes.optional import import_optional

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
    try:
        if path.suffix != _IR:
            # OpenVINO tries a corrupt file as one of every other kind, and complains of each on the terminal.
            onnx.load(path, load_external_data=False)
        return core.read_model(path)
    except Exception as error:
        # The protobuf reader's exceptions have no public base class.
        raise StorageError(
            f"OpenVINO can't read the model. Received: {str(path)!r}: {' '.join(str(error).split())}. "
            "Export the file again, or build it again with `keras-qat build-engine`."
        ) from error
