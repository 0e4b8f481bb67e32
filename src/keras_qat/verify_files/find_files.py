"""Which files there are to verify, and what each was made from."""

from keras_qat.errors import StorageError
from keras_qat.model_file import load_model_file
from keras_qat.paths import require_onnx_or_run
from keras_qat.placement import PLACEMENT_FILE, load_placement
from keras_qat.saved_run import SavedRun
from keras_qat.verify_files.case import Case, is_quantized
from keras_qat.verify_files.settings import VerificationSettings

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
    model = load_model_file(path)
    quantized = is_quantized(model)
    beside, baseline = file.with_name(PLACEMENT_FILE), path.with_name(f"{_BASELINE}.keras")
    placement = settings.placement or (beside if quantized and beside.is_file() else None)
    return Case(
        file.name,
        file,
        model,
        None if placement is None else load_placement(placement),
        load_model_file(baseline) if quantized and baseline.is_file() else None,
    )
