"""What a path must be that somebody names, as far as a glance tells: no TensorFlow, which takes seconds to load.

The command line asks these first. What reads a path asks again, so that a mistake has one message wherever it shows.
"""

import zipfile
from pathlib import Path

from keras_qat.errors import DataError, StorageError, WeightsError
from keras_qat.files.storage import is_file, is_folder, is_there

SETTINGS_FILE = "settings.json"
"""What a run was made with: in its folder from its start."""

RESULTS_FILE = "results.json"
"""What came of a run: in its folder at its end."""

IMAGENET = "imagenet"
"""The weights that Keras has itself."""


def require_model_file(path: Path) -> None:
    """Refuse what can't be a Keras model.

    Raises:
        StorageError: there is no such file, or a `.keras` file isn't the zip archive that it should be.

    Example:
        >>> require_model_file(Path("nowhere.keras"))
        Traceback (most recent call last):
        keras_qat.errors.StorageError: There is no such model file. ...
    """
    if not is_file(path):
        raise StorageError(f"There is no such model file. Received: {str(path)!r}. Give the path of a .keras file.")
    if path.suffix.lower() == ".keras" and not zipfile.is_zipfile(path):
        raise StorageError(
            f"The file can't be read as a Keras model: it isn't a whole zip archive. Received: {str(path)!r}. "
            "Save it again with `model.save`, or copy it again."
        )


def require_engine_model(path: Path) -> None:
    """Refuse the path of a file or folder for an engine where nothing is.

    Raises:
        StorageError: there is none.

    Example:
        >>> require_engine_model(Path("nowhere.engine"))
        Traceback (most recent call last):
        keras_qat.errors.StorageError: There is no model file of that name. ...
    """
    if not is_there(path):
        raise StorageError(f"There is no model file of that name. Received: {str(path)!r}. Export or build it first.")


def require_onnx_file(path: Path) -> None:
    """Refuse what is no file.

    Raises:
        StorageError: there is none.

    Example:
        >>> require_onnx_file(Path("nowhere.onnx"))
        Traceback (most recent call last):
        keras_qat.errors.StorageError: There is no ONNX file of that name. ...
    """
    if not is_file(path):
        raise StorageError(f"There is no ONNX file of that name. Received: {str(path)!r}. Export the model first.")


def require_onnx_or_run(path: Path) -> None:
    """Refuse what is neither a file nor the folder of a run.

    Raises:
        StorageError: it isn't.

    Example:
        >>> require_onnx_or_run(Path("nowhere"))
        Traceback (most recent call last):
        keras_qat.errors.StorageError: There is no such file or folder. ...
    """
    if is_folder(path):
        require_run(path)
    elif not is_file(path):
        raise StorageError(
            f"There is no such file or folder. Received: {str(path)!r}. Give an ONNX file, or the folder of a run."
        )


def require_run(folder: Path) -> None:
    """Refuse what is no folder of a run.

    Raises:
        StorageError: it has no settings.json.

    Example:
        >>> require_run(Path("nowhere"))
        Traceback (most recent call last):
        keras_qat.errors.StorageError: This is not the folder of a run: it has no settings.json. ...
    """
    if not is_file(folder / SETTINGS_FILE):
        raise StorageError(
            f"This is not the folder of a run: it has no {SETTINGS_FILE}. Received: {str(folder)!r}. Give the folder "
            "that `keras-qat run` named at its end, such as runs/resnet50-digits-onnxruntime."
        )


def require_finished_run(folder: Path) -> None:
    """Refuse what is no folder of a run that is done.

    Raises:
        StorageError: it has no results.json.

    Example:
        >>> require_finished_run(Path("nowhere"))
        Traceback (most recent call last):
        keras_qat.errors.StorageError: This is not the folder of a finished run: it has no results.json. ...
    """
    if not is_file(folder / RESULTS_FILE):
        unfinished = "the run hasn't finished: it" if is_file(folder / SETTINGS_FILE) else "it"
        raise StorageError(
            f"This is not the folder of a finished run: {unfinished} has no {RESULTS_FILE}. Received: "
            f"{str(folder)!r}. Give the folder that `keras-qat run` named at its end, such as "
            "runs/resnet50-digits-onnxruntime."
        )


def variant_file(folder: Path, variant: str) -> Path:
    """The `.keras` file of a run's variant.

    Args:
        folder: of the run.
        variant: baseline, ptq or qat.

    Raises:
        StorageError: the run has none.

    Example:
        >>> variant_file(Path("nowhere"), "qat")
        Traceback (most recent call last):
        keras_qat.errors.StorageError: The run has no qat.keras. ...
    """
    path = folder / f"{variant}.keras"
    if not is_file(path):
        present = ", ".join(sorted(found.name for found in folder.glob("*.keras"))) or "no .keras file"
        raise StorageError(
            f"The run has no {path.name}. Received: {str(folder)!r}, which holds {present}. Let `keras-qat "
            "run` finish; with --skip-fine-tuning, and by `keras-qat quantize`, it makes no qat.keras."
        )
    return path


def require_image(path: Path) -> None:
    """Refuse what is no file.

    Raises:
        DataError: there is none.

    Example:
        >>> require_image(Path("nowhere.png"))
        Traceback (most recent call last):
        keras_qat.errors.DataError: Can't read the image nowhere.png: there is no such file. ...
    """
    if not is_file(path, DataError):
        raise DataError(
            f"Can't read the image {path}: there is no such file. Received: {str(path)!r}. Give the path of an image."
        )


def require_weights(weights: str | Path) -> None:
    """Refuse weights that are neither ImageNet's nor in a file.

    Raises:
        WeightsError: there is no such file.

    Example:
        >>> require_weights("imagenet")
        >>> require_weights("nowhere.weights.h5")
        Traceback (most recent call last):
        keras_qat.errors.WeightsError: There is no such file of weights. ...
    """
    if str(weights) != IMAGENET and not is_file(Path(weights), WeightsError):
        raise WeightsError(
            f"There is no such file of weights. Received: {str(weights)!r}. Give a .weights.h5, .h5 or .keras file, "
            f"or {IMAGENET!r} to download."
        )
