"""A `.keras` file → a file to deploy, which is then compared with the model on random numbers."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast

from keras_qat import doctor, files, models, onnx, runtimes, targets, verify
from keras_qat.errors import MANY, StorageError, UserError, settle_numbers
from keras_qat.export.onnx_file import export_onnx
from keras_qat.export.options import ExportOptions

Form = Literal["onnx", "saved-model"]


@dataclass(frozen=True)
class ExportSettings:
    """The export of one Keras model to one file or folder.

    Args:
        model: a .keras file, float or quantized.
        output: the file or folder to write. If not given, it goes beside the model.
        form: the format: an ONNX file, or TensorFlow's SavedModel.
        target: the engine whose preferences an ONNX file follows.
        options: options of an ONNX file.
        seed: seed of the random numbers that file and model are compared on.

    Raises:
        StorageError: If the output would replace the model, or is an ONNX file whose name doesn't end in .onnx.
        UserError: If the target or opset is unknown, or the opset doesn't go with the precision.

    Example:
        >>> ExportSettings(Path("made/qat.keras")).path.name
        'qat.onnx'
    """

    model: Path
    output: Path | None = None
    form: Form = "onnx"
    target: str = "onnxruntime"
    options: ExportOptions = field(default_factory=ExportOptions)
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse an unknown target or opset, and an output that can't be one."""
        targets.find_target(self.target)
        onnx.require_opset(self.options.opset, self.options.precision)
        settle_numbers(self, seed=(0, MANY))
        if self.form == "onnx" and self.path.suffix != ".onnx":
            raise StorageError(
                f"The name of an ONNX file ends in .onnx. Received: {str(self.path)!r}. Name the output that way."
            )
        if self.path.resolve() == self.model.resolve():
            raise StorageError(
                f"The file would replace its own model. Received: {str(self.path)!r}. Name another output."
            )

    @property
    def path(self) -> Path:
        """The path of the file or folder that is written."""
        if self.output is not None:
            return self.output
        if self.form == "saved-model":
            return self.model.with_name(f"{self.model.stem}_saved_model")
        return self.model.with_suffix(".onnx")

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON can hold them."""
        return cast("dict[str, Any]", files.to_json_value(self))


@dataclass(frozen=True)
class Exported:
    """A written file, and its comparison with the model.

    Args:
        path: path of the file or folder.
        form: format of the file.
        target: the engine whose preferences the file follows; `None` for a SavedModel.
        opset: ONNX operator set; `None` for a SavedModel.
        inputs: name of the inputs of the comparison.
        check: the comparison of the file with the model.
    """

    path: str
    form: Form
    target: str | None
    opset: int | None
    inputs: str
    check: verify.FileCheck

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON can hold them."""
        return {**asdict(self), "check": self.check.to_dict()}


def export_file(settings: ExportSettings) -> Exported:
    """Write a model to a file, then compare the file with the model.

    Args:
        settings: the model, the file and its options.

    Returns:
        The file and the comparison. A file that differs from its model is kept.

    Raises:
        StorageError: If the model can't be read, or the file can't be written.
        UnsupportedModelError: If a layer has no converter.
        UserError: If options don't go together, a size other than the batch is dynamic, or normalization is to be
            embedded but is not known.
    """
    model = models.load_model_file(settings.model)
    facts = _facts(settings)
    _require_free(settings)
    # Drawn before the file is written, since a model without such inputs can't be compared.
    inputs = verify.random_numbers(model, runtimes.KerasRuntime(model).inputs, facts, settings.seed)
    return _WRITERS[settings.form](settings, model, facts, inputs)


def _facts(settings: ExportSettings) -> models.ModelFacts | None:
    """The facts in the `preprocessing.json` beside the model, for the file that is written."""
    facts = models.read_model_facts(settings.model.absolute())
    if not settings.options.embed_preprocessing:
        return facts
    if facts is None or facts.preprocessing is None:
        raise UserError(
            f"Nothing says how images are normalized for this model. Received: {str(settings.model)!r} with no "
            f"{files.FACTS_FILE} beside it, and embed_preprocessing. Put that file of its run there, or leave the "
            "option out."
        )
    return replace(facts, embedded=True, preprocessing=replace(facts.preprocessing, whole_pixels=True))


def _require_free(settings: ExportSettings) -> None:
    """Refuse an output that can't be written, or would replace something else."""
    path = settings.path
    if settings.output is None:
        files.require_no_run_file(path)
    if settings.form == "onnx" and path.is_dir():
        raise StorageError(f"An ONNX file is no folder. Received: the folder {str(path)!r}. Name a file.")
    if settings.form == "saved-model":
        from keras_qat.export.keras_formats import require_saved_model_place

        require_saved_model_place(path)
    files.require_writable(path.parent)


def _onnx(settings: ExportSettings, model: Any, facts: models.ModelFacts | None, inputs: verify.Inputs) -> Exported:
    path = export_onnx(
        model,
        settings.path,
        target=settings.target,
        opset=settings.options.opset,
        precision=settings.options.precision,
        metadata=None if facts is None else facts.metadata(),
        normalization=None if facts is None else facts.normalization,
    )
    check = verify.check_file(verify.Case(path.name, path, model), inputs)
    if check.miss is None and (refused := _refused(path, settings.target)) is not None:
        check = replace(check, miss=refused)
    return Exported(str(path), "onnx", settings.target, onnx.read_onnx_file(path).opset, inputs.name, check)


def _refused(path: Path, target: str) -> str | None:
    """Why the engine refuses the file; `None` if it takes it. It refuses the pairs of a model quantized for another."""
    findings = doctor.examine(path, [target]).findings
    errors = [finding for finding in findings if finding.severity is doctor.Severity.ERROR]
    if not errors:
        return None
    return (
        f"The file isn't one for {target}: {errors[0].problem}; {errors[0].cost}. Received: {str(path)!r}, with "
        f"{len(errors)} such finding(s). Quantize the float model for {target}; `keras-qat doctor` lists them."
    )


def _saved_model(settings: ExportSettings, model: Any, _: models.ModelFacts | None, inputs: verify.Inputs) -> Exported:
    from keras_qat.export.keras_formats import export_saved_model

    path = export_saved_model(model, settings.path)
    check = verify.check_saved_model(path, model, inputs, trust=True)
    return Exported(str(path), "saved-model", None, None, inputs.name, check)


_WRITERS: Mapping[Form, Callable[[ExportSettings, Any, models.ModelFacts | None, verify.Inputs], Exported]] = {
    "onnx": _onnx,
    "saved-model": _saved_model,
}
