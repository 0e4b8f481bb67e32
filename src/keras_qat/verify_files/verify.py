"""The files of a run, or one file, held to what they were made from."""

from dataclasses import replace

from keras_qat.data import ImageSet, Preprocessing, load_validation
from keras_qat.errors import UserError
from keras_qat.model_facts import ModelFacts, read_model_facts
from keras_qat.own_model import input_preprocessing
from keras_qat.runtimes import KerasRuntime
from keras_qat.saved_run import open_run
from keras_qat.verify_files.case import Case
from keras_qat.verify_files.check import check_file
from keras_qat.verify_files.contents import read_contents
from keras_qat.verify_files.find_files import case_of_file, cases_of_run
from keras_qat.verify_files.inputs import RANDOM_NUMBERS, Inputs, images_of, random_numbers
from keras_qat.verify_files.record import Verification
from keras_qat.verify_files.settings import VerificationSettings


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
    read_contents(case.file)
    facts = _facts(case, settings.preprocessing)
    images = None if settings.data is None else _images(case, settings.data, facts, settings)
    name = RANDOM_NUMBERS if images is None else images.name
    return Verification(name, (check_file(case, _inputs(case, images, facts, settings)),))


def _images(case: Case, data: str, facts: ModelFacts | None, settings: VerificationSettings) -> ImageSet:
    """Images for both models. Their labels don't matter, so they may be of any classes."""
    prepared = input_preprocessing(case.model, None, case.file) if facts is None else facts.preprocessing
    return load_validation(data, prepared, settings.seed, settings.skip_bad, num_classes=0).images


def _inputs(case: Case, images: ImageSet | None, facts: ModelFacts | None, settings: VerificationSettings) -> Inputs:
    if images is None or facts is None:
        return random_numbers(case.model, KerasRuntime(case.model).inputs, facts, settings.seed)
    return images_of(images, facts, settings.images, settings.seed)


def _facts(case: Case, given: Preprocessing | None) -> ModelFacts | None:
    """What the user says of the file's images goes before what it says itself, and that before what its model shows."""
    found = read_model_facts(case.file.absolute())
    if found is None:
        prepared = given or _shown(case)
        return None if prepared is None else ModelFacts(prepared, embedded=False, class_names=())
    return found if given is None else replace(found, preprocessing=given)


def _shown(case: Case) -> Preprocessing | None:
    """What the Keras model's first layer shows; `None` for models of other inputs, and where it shows nothing."""
    try:
        return input_preprocessing(case.model, None, case.file)
    except UserError:
        return None
