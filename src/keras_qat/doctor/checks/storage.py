"""Whether the file is whole: its graph, its external data, its numbers."""

from collections.abc import Iterator

import numpy as np
import onnx

from keras_qat.doctor.constants import numbers
from keras_qat.doctor.engines import Engine
from keras_qat.doctor.finding import Severity, Symptom
from keras_qat.doctor.onnx_file import OnnxFile

_AGAIN = "Export it again. If it was copied, copy what lies beside it too."


def empty_graph(file: OnnxFile, _: Engine) -> Iterator[Symptom]:
    """A graph without nodes."""
    if not len(file.model.graph):
        yield Symptom(Severity.ERROR, "the graph has no nodes", "it computes nothing", _AGAIN)


def missing_data(file: OnnxFile, _: Engine) -> Iterator[Symptom]:
    """Weights that should lie beside the file.

    Source: https://onnx.ai/onnx/repo-docs/ExternalData.html.
    """
    if file.missing_data:
        yield Symptom(
            Severity.ERROR,
            "the external data of these tensors are missing or cut short",
            "no engine can load the file",
            "Copy the data file to where the .onnx file lies, under its old name; or save all in one file: "
            "onnx.save_model(model, path, save_as_external_data=False).",
            file.missing_data,
        )


def invalid_model(file: OnnxFile, _: Engine) -> Iterator[Symptom]:
    """What ONNX's own checker refuses: https://onnx.ai/onnx/api/checker.html."""
    if file.missing_data or not len(file.model.graph):
        return
    try:
        onnx.checker.check_model(str(file.path))
    except Exception as error:  # noqa: BLE001  (ValidationError for most, but not for all that it meets)
        said = " ".join(str(error).split())[:200]
        yield Symptom(Severity.ERROR, f"it is no valid ONNX: {said}", "engines refuse it or guess", _AGAIN)


def not_finite(file: OnnxFile, _: Engine) -> Iterator[Symptom]:
    """Weights that are NaN or infinite."""
    bad = [
        str(name)
        for name, value in file.model.graph.initializers.items()
        if (array := numbers(value)) is not None and array.dtype.kind == "f" and not np.all(np.isfinite(array))
    ]
    if bad:
        yield Symptom(
            Severity.ERROR,
            "stored numbers are NaN or infinite",
            "what they touch becomes NaN",
            "Look for the epoch in which training diverged, and export an earlier one.",
            tuple(bad),
        )
