"""What a verification is made of.

Which files there are to verify, and what each was made from.

The files of a run, or one file, held to what they were made from.
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from keras_qat import models, runtimes
from keras_qat.data import ImageSet, Preprocessing, load_validation
from keras_qat.errors import StorageError, UserError, require_seed
from keras_qat.files import require_onnx_or_run
from keras_qat.onnx import read_onnx_file
from keras_qat.placement import PLACEMENT_FILE, load_placement
from keras_qat.run.folder import SavedRun, open_run
from keras_qat.verify import (
    RANDOM_NUMBERS,
    Case,
    Inputs,
    Verification,
    check_file,
    images_of,
    is_quantized,
    random_numbers,
)


@dataclass(frozen=True)
class VerificationSettings:
    """All the ONNX files of a run, or one file.

    Args:
        path: the folder of a run, or an ONNX file.
        model: the Keras model that the file was exported from; that of the same name beside it if not given.
        placement: what the file was planned to be; of a quantized model the `placement.json` beside it, if there is
            one and none is given.
        data: as for `load_validation`; the run's held-out images if not given, and random numbers for one file.
        preprocessing: of those images; what stands in the file or beside it if not given.
        images: how many of them.
        seed: it chooses the images, and draws the random numbers.
        skip_bad: leave out what is no image; a run has its own word on it.

    Raises:
        UserError: a number is out of range, or a folder is given files that only go with one file.

    Example:
        >>> VerificationSettings(Path("qat.onnx")).images
        128
    """

    path: Path
    model: Path | None = None
    placement: Path | None = None
    data: str | None = None
    preprocessing: Preprocessing | None = None
    images: int = 128
    seed: int = 0
    skip_bad: bool = False

    def __post_init__(self) -> None:
        """Refuse what no verification can be."""
        if self.images < 1:
            raise UserError(f"`images` must be at least 1. Received: {self.images}. Give a larger number.")
        require_seed(self.seed)
        if self.path.is_dir() and (self.model is not None or self.placement is not None):
            raise UserError(
                "The folder of a run has a model for each file, and one placement. "
                f"Received: {str(self.path)!r} with model={_text(self.model)}, placement={_text(self.placement)}. "
                "Leave these out, or name one ONNX file of the folder."
            )

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON can hold them."""
        paths = {name: _text(getattr(self, name)) for name in ("path", "model", "placement")}
        return {**asdict(self), **paths}


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


_BASELINE = "baseline"
_QUANTIZED = ("ptq", "qat")
"""The files of a run, by the stem of their names, in the order in which they are made."""


def cases_of_run(run: SavedRun) -> tuple[Case, ...]:
    """The ONNX files of a run: the baseline's, then the quantized ones.

    Args:
        run: its folder.

    Raises:
        StorageError: it has no placement or no quantized ONNX file, or one without its Keras model.
        UserError: the placement can't be understood.
    """
    placement = run.placement()
    files = {stem: run.folder / f"{stem}.onnx" for stem in (_BASELINE, *_QUANTIZED)}
    made = [stem for stem, file in files.items() if file.is_file()]
    if not set(made) & set(_QUANTIZED):
        raise StorageError(
            f"The run has no quantized ONNX file. Received: {str(run.folder)!r}. Let the command that made it finish, "
            "or name one ONNX file with --model."
        )
    baseline = run.model(_BASELINE)
    float_case = (Case(_BASELINE, files[_BASELINE], baseline),) if _BASELINE in made else ()
    quantized = (
        Case(stem.upper(), files[stem], run.model(stem), placement, baseline) for stem in _QUANTIZED if stem in made
    )
    return (*float_case, *quantized)


def case_of_file(settings: VerificationSettings) -> Case:
    """One ONNX file.

    Raises:
        StorageError: it, its Keras model or its placement can't be read.
        UserError: the placement can't be understood.
    """
    file = settings.path
    require_onnx_or_run(file)
    path = settings.model or file.with_suffix(".keras")
    if settings.model is None and not path.is_file():
        raise StorageError(
            f"There is no {path.name} beside the file. Received: {str(file)!r}. Say with --model which .keras file it "
            "was exported from."
        )
    model = models.load_model_file(path)
    quantized = is_quantized(model)
    beside, baseline = file.with_name(PLACEMENT_FILE), path.with_name(f"{_BASELINE}.keras")
    placement = settings.placement or (beside if quantized and beside.is_file() else None)
    return Case(
        file.name,
        file,
        model,
        None if placement is None else load_placement(placement),
        models.load_model_file(baseline) if quantized and baseline.is_file() else None,
    )


def verify_files(settings: VerificationSettings) -> Verification:
    """Hold each file to its placement and to its Keras model.

    Args:
        settings: which files, on what.

    Returns:
        What was found of each, right or wrong.

    Raises:
        StorageError: a file is missing or can't be read.
        DataError: the images can't be read.
        UserError: the placement or the settings of the run can't be understood, or nobody says how images are prepared.
    """
    return _verify_run(settings) if settings.path.is_dir() else _verify_file(settings)


def _verify_run(settings: VerificationSettings) -> Verification:
    """All files on the run's own held-out images, which nothing was calibrated or trained on."""
    run = open_run(settings.path, data=settings.data)
    cases = cases_of_run(run)
    images = run.data().selection
    checks = tuple(
        check_file(case, _inputs(case, images, _facts(case, settings.preprocessing), settings)) for case in cases
    )
    return Verification(images.name, checks)


def _verify_file(settings: VerificationSettings) -> Verification:
    case = case_of_file(settings)
    read_onnx_file(case.file)
    facts = _facts(case, settings.preprocessing)
    images = None if settings.data is None else _images(case, settings.data, facts, settings)
    name = RANDOM_NUMBERS if images is None else images.name
    return Verification(name, (check_file(case, _inputs(case, images, facts, settings)),))


def _images(case: Case, data: str, facts: models.ModelFacts | None, settings: VerificationSettings) -> ImageSet:
    """Images for both models. Their labels don't matter, so they may be of any classes."""
    prepared = models.input_preprocessing(case.model, None, case.file) if facts is None else facts.preprocessing
    return load_validation(data, prepared, settings.seed, settings.skip_bad, num_classes=0).images


def _inputs(
    case: Case, images: ImageSet | None, facts: models.ModelFacts | None, settings: VerificationSettings
) -> Inputs:
    if images is None or facts is None:
        return random_numbers(case.model, runtimes.KerasRuntime(case.model).inputs, facts, settings.seed)
    return images_of(images, facts, settings.images, settings.seed)


def _facts(case: Case, given: Preprocessing | None) -> models.ModelFacts | None:
    """What the user says of the file's images goes before what it says itself, and that before what its model shows."""
    found = models.read_model_facts(case.file.absolute())
    if found is None:
        prepared = given or _shown(case)
        return None if prepared is None else models.ModelFacts(prepared, embedded=False, class_names=())
    return found if given is None else replace(found, preprocessing=given)


def _shown(case: Case) -> Preprocessing | None:
    """What the Keras model's first layer shows; `None` for models of other inputs, and where it shows nothing."""
    try:
        return models.input_preprocessing(case.model, None, case.file)
    except UserError:
        return None
