"""`.keras` → a file to deploy, then compared with the model on random numbers."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from keras_qat.doctor import Severity, examine
from keras_qat.errors import StorageError, UserError
from keras_qat.export import export_onnx
from keras_qat.export_file.settings import ExportSettings, Form
from keras_qat.model_facts import FACTS_FILE, ModelFacts, read_model_facts
from keras_qat.model_file import load_model_file
from keras_qat.paths import SETTINGS_FILE
from keras_qat.runtimes import KerasRuntime
from keras_qat.storage import require_writable
from keras_qat.verify_files import (
    Case,
    FileCheck,
    Inputs,
    check_file,
    check_saved_model,
    random_numbers,
    read_contents,
)


@dataclass(frozen=True)
class Exported:
    """What was written, and what came of comparing it.

    Args:
        path: the file or folder.
        form: its format.
        target: the engine whose preferences it follows; `None` for a SavedModel.
        opset: ONNX operator set; likewise.
        inputs: what it was compared on.
        check: file against model.
    """

    path: str
    form: Form
    target: str | None
    opset: int | None
    inputs: str
    check: FileCheck

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON can hold it."""
        return {**asdict(self), "check": self.check.to_dict()}


def export_file(settings: ExportSettings) -> Exported:
    """Write a model, then hold the file to it.

    Args:
        settings: what, and where.

    Returns:
        What was found. A file that misses a promise is kept.

    Raises:
        StorageError: the model can't be read, or the file can't be written.
        UnsupportedModelError: a layer has no converter.
        UserError: options don't go together, a size other than the batch is dynamic, or normalization is to be
            embedded and nobody says which.
    """
    model = load_model_file(settings.model)
    facts = _facts(settings)
    _require_free(settings)
    # Drawn first: what can't be compared isn't written.
    inputs = random_numbers(model, KerasRuntime(model).inputs, facts, settings.seed)
    return _WRITERS[settings.form](settings, model, facts, inputs)


def _onnx(settings: ExportSettings, model: Any, facts: ModelFacts | None, inputs: Inputs) -> Exported:
    path = export_onnx(
        model,
        settings.path,
        target=settings.target,
        opset=settings.opset,
        precision=settings.precision,
        metadata=None if facts is None else facts.metadata(),
        normalization=facts.preprocessing.normalization if facts is not None and facts.embedded else None,
    )
    check = check_file(Case(path.name, path, model), inputs)
    if check.miss is None and (refused := _refused(path, settings.target)) is not None:
        check = replace(check, miss=refused)
    return Exported(str(path), "onnx", settings.target, read_contents(path).opset, inputs.name, check)


def _refused(path: Path, target: str) -> str | None:
    """Why the engine won't take the file; a model that was quantized for another one has pairs that it refuses."""
    errors = [finding for finding in examine(path, [target]).findings if finding.severity is Severity.ERROR]
    if not errors:
        return None
    return (
        f"The file isn't one for {target}: {errors[0].problem}; {errors[0].cost}. Received: {str(path)!r}, with "
        f"{len(errors)} such finding(s). Quantize the float model for {target}; `keras-qat doctor` lists them."
    )


def _saved_model(settings: ExportSettings, model: Any, _: ModelFacts | None, inputs: Inputs) -> Exported:
    from keras_qat.export.saved_model import export_saved_model

    path = export_saved_model(model, settings.path)
    return Exported(str(path), "saved-model", None, None, inputs.name, check_saved_model(path, model, inputs))


_WRITERS: Mapping[Form, Callable[[ExportSettings, Any, ModelFacts | None, Inputs], Exported]] = {
    "onnx": _onnx,
    "saved-model": _saved_model,
}


def _facts(settings: ExportSettings) -> ModelFacts | None:
    """What the `preprocessing.json` beside the model says, for the file that is written."""
    found = read_model_facts(settings.model.absolute())
    if not settings.embed_preprocessing:
        return found
    if found is None:
        raise UserError(
            f"Nothing says how images are normalized for this model. Received: {str(settings.model)!r} with no "
            f"{FACTS_FILE} beside it, and embed_preprocessing. Put that file of its run there, or leave the option out."
        )
    return replace(found, embedded=True, preprocessing=replace(found.preprocessing, whole_pixels=True))


def _require_free(settings: ExportSettings) -> None:
    """Refuse an output that can't be written, or would replace something else."""
    path: Path = settings.path
    if settings.output is None and path.exists() and (path.parent / SETTINGS_FILE).is_file():
        raise StorageError(
            "A file of a run would be replaced, and its results would be those of another file. Received: "
            f"{str(path)!r}. Name another file with --output."
        )
    if settings.form == "onnx" and path.is_dir():
        raise StorageError(f"An ONNX file is no folder. Received: the folder {str(path)!r}. Name a file.")
    if settings.form == "saved-model" and path.exists() and not (path / "saved_model.pb").is_file():
        raise StorageError(
            f"Something else is there, which a SavedModel would replace. Received: {str(path)!r}. Name another folder."
        )
    require_writable(path.parent)
