"""Verification after a run: all ONNX files of its folder, or one file, against what they were made from."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_qat import data as data_sets
from keras_qat import models, onnx, placement, runtimes, verify
from keras_qat.errors import MANY, StorageError, UserError, settle_numbers
from keras_qat.files import to_json_value
from keras_qat.run.folder import RunFolder, require_file_or_run, seed_for
from keras_qat.types import BASELINE, PTQ, QAT

if TYPE_CHECKING:
    from keras_qat.data import ImageSet, Preprocessing


@dataclass(frozen=True)
class VerificationSettings:
    """What is verified, and on which inputs: all the ONNX files of a run, or one file.

    Args:
        path: the folder of a run, or an ONNX file.
        model: the .keras file that the ONNX file was exported from. If not given, that of the same name beside it.
        placement: the placement.json of the file's run. If not given, that beside the ONNX file of a quantized model,
            if there is one.
        data: images to compare classes on, as for `keras-qat evaluate`. A run has its own: the option says where they
            are now, if they were moved. One file is compared on random numbers if no images are given.
        preprocessing: how images are prepared, as MODE:SIZE or MODE:SIZE:RESIZE, such as caffe:224:256, with :squash or
            :letterbox behind it where training didn't crop. If not given, what is written in the file or beside it, or
            what the model's first Rescaling or Normalization shows.
        images: number of images to compare classes on.
        seed: seed that decides which digits or photos are validation images, chooses among them, and draws the random
            numbers. If not given, that of the settings.json beside the file, or 0.
        skip_bad: leave out files that are not images or only parts of one, and corrupt records, instead of stopping.
            This is for one file; for a run, its own settings decide.

    Raises:
        UserError: If a number is out of range, or files that go with one ONNX file are given for a folder.

    Example:
        >>> VerificationSettings(Path("qat.onnx")).images
        128
    """

    path: Path
    model: Path | None = None
    placement: Path | None = None
    data: str | None = None
    preprocessing: "Preprocessing | None" = None
    images: int = 128
    seed: int | None = None
    skip_bad: bool = False

    def __post_init__(self) -> None:
        """Refuse numbers out of range, and files that don't go with a folder."""
        settle_numbers(self, seed=(0, MANY))
        if self.path.is_dir() and (self.model is not None or self.placement is not None):
            raise UserError(
                "The folder of a run has a model for each file, and one placement. "
                f"Received: {str(self.path)!r} with model={self.model}, placement={self.placement}. "
                "Leave these out, or name one ONNX file of the folder."
            )

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON can hold them."""
        return {**to_json_value(self), "seed": _seed(self)}


def verify_files(settings: VerificationSettings) -> "verify.Verification":
    """Compare each file with its placement and with its Keras model.

    Args:
        settings: the files and their inputs.

    Returns:
        The result for each file, whether or not it differs.

    Raises:
        StorageError: If a file is missing or can't be read.
        DataError: If the images can't be read.
        UserError: If the placement or the settings of the run can't be understood, or nothing says how images are
            prepared.
    """
    return _verify_run(settings) if settings.path.is_dir() else _verify_file(settings)


def _verify_run(settings: VerificationSettings) -> "verify.Verification":
    """Compare all files on the run's selection images, on which nothing was calibrated or trained."""
    folder = RunFolder(settings.path)
    saved = folder.settings()
    cases = _cases_of_run(folder)
    from keras_qat.run.start import load_saved

    images = load_saved(saved if settings.data is None else saved.changed(data=settings.data)).selection
    checks = tuple(
        verify.check_file(case, _inputs(case, images, _facts(case, settings.preprocessing), settings)) for case in cases
    )
    return verify.Verification(images.name, checks)


def _cases_of_run(folder: RunFolder) -> "tuple[verify.Case, ...]":
    """The ONNX files of a run: the baseline's, then the quantized ones."""
    planned = folder.placement()
    written = [variant for variant in (BASELINE, PTQ, QAT) if folder.onnx_path(variant).is_file()]
    if not set(written) & {PTQ, QAT}:
        raise StorageError(
            f"The run has no quantized ONNX file. Received: {str(folder.path)!r}. Let the command that made it finish, "
            "or name one ONNX file with --model."
        )
    baseline = folder.model(BASELINE)
    float_case = verify.Case(folder.onnx_path(BASELINE).stem, folder.onnx_path(BASELINE), baseline)
    quantized = (
        verify.Case(variant, folder.onnx_path(variant), folder.model(variant), planned, baseline)
        for variant in written
        if variant != BASELINE
    )
    return (*((float_case,) if BASELINE in written else ()), *quantized)


def _verify_file(settings: VerificationSettings) -> "verify.Verification":
    case = _case_of_file(settings)
    onnx.read_onnx_file(case.file)
    facts = _facts(case, settings.preprocessing)
    images = None if settings.data is None else _images(case, settings.data, facts, settings)
    name = verify.RANDOM_NUMBERS if images is None else images.name
    return verify.Verification(name, (verify.check_file(case, _inputs(case, images, facts, settings)),))


def _case_of_file(settings: VerificationSettings) -> "verify.Case":
    """One ONNX file with its Keras model, and with its placement and float model if they are there."""
    file = settings.path
    require_file_or_run(file)
    path = settings.model or file.with_suffix(".keras")
    if settings.model is None and not path.is_file():
        raise StorageError(
            f"There is no {path.name} beside the file. Received: {str(file)!r}. Say with --model which .keras file it "
            "was exported from."
        )
    model = models.load_model_file(path)
    quantized = verify.is_quantized(model)
    beside, baseline = file.with_name(placement.PLACEMENT_FILE), RunFolder(path.parent).model_path(BASELINE)
    plan = settings.placement or (beside if quantized and beside.is_file() else None)
    return verify.Case(
        file.name,
        file,
        model,
        None if plan is None else placement.load_placement(plan),
        models.load_model_file(baseline) if quantized and baseline.is_file() else None,
    )


def _images(
    case: "verify.Case", data: str, facts: "models.ModelFacts | None", settings: VerificationSettings
) -> "ImageSet":
    """Images for both models. Their labels are not used, so they may be of any classes."""
    known = None if facts is None else facts.preprocessing
    prepared = known or models.input_preprocessing(case.model, None, case.file)
    images: ImageSet = data_sets.load_validation(
        data, prepared, _seed(settings), settings.skip_bad, num_classes=0
    ).images
    return images


def _facts(case: "verify.Case", given: "Preprocessing | None") -> "models.ModelFacts | None":
    """The facts about a file's images: as `given` by the user, else as in the file, else as its model's layer shows."""
    facts = models.read_model_facts(case.file.absolute())
    if facts is not None:
        return facts if given is None else replace(facts, preprocessing=given)
    prepared = given or _shown(case)
    return None if prepared is None else models.ModelFacts(prepared, embedded=False, class_names=())


def _shown(case: "verify.Case") -> "Preprocessing | None":
    """The preprocessing that the Keras model's first layer shows; `None` if it shows none or its input is no image."""
    try:
        return models.input_preprocessing(case.model, None, case.file)
    except UserError:
        return None


def _inputs(
    case: "verify.Case", images: "ImageSet | None", facts: "models.ModelFacts | None", settings: VerificationSettings
) -> "verify.Inputs":
    if images is None or facts is None:
        return verify.random_numbers(case.model, runtimes.KerasRuntime(case.model).inputs, facts, _seed(settings))
    return verify.images_of(images, facts, settings.images, _seed(settings))


def _seed(settings: VerificationSettings) -> int:
    return seed_for(settings.path, settings.seed)
