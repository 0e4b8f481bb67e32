"""The files of a run, or one file, held to what they were made from."""

from dataclasses import replace
from pathlib import Path

from keras_qat.data import ImageSet, Preprocessing, load_validation
from keras_qat.errors import UserError
from keras_qat.model_facts import ModelFacts, read_model_facts
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
    checks = tuple(check_file(case, _inputs(case, images, settings)) for case in cases)
    return Verification(images.name, checks)


def _verify_file(settings: VerificationSettings) -> Verification:
    case = case_of_file(settings)
    read_contents(case.file)
    facts = _facts(case.file, settings.preprocessing)
    if settings.data is None:
        return Verification(RANDOM_NUMBERS, (check_file(case, _inputs(case, None, settings)),))
    if facts is None:
        raise UserError(
            f"Nothing says how images are prepared for this model. Received: {str(case.file)!r}, with nothing in it. "
            "Say it with --preprocessing MODE:SIZE or MODE:SIZE:RESIZE, such as caffe:224:256."
        )
    images = load_validation(settings.data, facts.preprocessing, settings.seed).images
    return Verification(images.name, (check_file(case, _inputs(case, images, settings)),))


def _inputs(case: Case, images: ImageSet | None, settings: VerificationSettings) -> Inputs:
    facts = _facts(case.file, settings.preprocessing)
    if images is None or facts is None:
        return random_numbers(case.model, KerasRuntime(case.model).inputs, facts, settings.seed)
    return images_of(images, facts, settings.images, settings.seed)


def _facts(file: Path, given: Preprocessing | None) -> ModelFacts | None:
    """What the file expects; what the user says of it goes before what it says itself."""
    found = read_model_facts(file.absolute())
    if given is None:
        return found
    return ModelFacts(given, embedded=False, class_names=()) if found is None else replace(found, preprocessing=given)
