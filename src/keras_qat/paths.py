"""What a path must be that somebody names, as far as a glance tells: no TensorFlow, which takes seconds to load.

The command line asks these first. What reads a path asks again, so that a mistake has one message wherever it shows.
"""

import zipfile
from pathlib import Path

from keras_qat.errors import DataError, StorageError, WeightsError

SETTINGS_FILE = "settings.json"
RESULTS_FILE = "results.json"
"""Of a run's folder: there from its start, and at its end."""

EMBEDDED = frozenset({"digits"})
"""The data sets that need no folder; `keras_qat.data.DATA_SETS` loads them."""

TFDS_PREFIX = "tfds:"
"""Before the name of a data set of TensorFlow Datasets."""

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
    if not path.is_file():
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
    """
    if not path.exists():
        raise StorageError(f"There is no model file of that name. Received: {str(path)!r}. Export or build it first.")


def require_onnx_file(path: Path) -> None:
    """Refuse what is no file.

    Raises:
        StorageError: there is none.
    """
    if not path.is_file():
        raise StorageError(f"There is no ONNX file of that name. Received: {str(path)!r}. Export the model first.")


def require_onnx_or_run(path: Path) -> None:
    """Refuse what is neither a file nor the folder of a run.

    Raises:
        StorageError: it isn't.
    """
    if path.is_dir():
        require_run(path)
    elif not path.is_file():
        raise StorageError(
            f"There is no such file or folder. Received: {str(path)!r}. Give an ONNX file, or the folder of a run."
        )


def require_run(folder: Path) -> None:
    """Refuse what is no folder of a run.

    Raises:
        StorageError: it has no settings.json.
    """
    if not (folder / SETTINGS_FILE).is_file():
        raise StorageError(
            f"This is not the folder of a run: it has no {SETTINGS_FILE}. Received: {str(folder)!r}. Give the folder "
            "that `keras-qat run` named at its end, such as runs/resnet50-digits-onnxruntime."
        )


def require_finished_run(folder: Path) -> None:
    """Refuse what is no folder of a run that is done.

    Raises:
        StorageError: it has no results.json.
    """
    if not (folder / RESULTS_FILE).is_file():
        unfinished = "the run hasn't finished: it" if (folder / SETTINGS_FILE).is_file() else "it"
        raise StorageError(
            f"This is not the folder of a finished run: {unfinished} has no {RESULTS_FILE}. Received: "
            f"{str(folder)!r}. Give the folder that `keras-qat run` named at its end, such as "
            "runs/resnet50-digits-onnxruntime."
        )


def variant_file(folder: Path, variant: str) -> Path:
    """The `.keras` file of a run's variant: baseline, ptq or qat.

    Raises:
        StorageError: the run has none.
    """
    path = folder / f"{variant}.keras"
    if not path.is_file():
        present = ", ".join(sorted(found.name for found in folder.glob("*.keras"))) or "no .keras file"
        raise StorageError(
            f"The run has no {path.name}. Received: {str(folder)!r}, which holds {present}. Let `keras-qat "
            "run` finish; with --skip-fine-tuning, and by `keras-qat quantize`, it makes no qat.keras."
        )
    return path


def require_source(source: str | Path) -> None:
    """Refuse what is neither the name of a data set nor a folder.

    Raises:
        DataError: it isn't.

    Example:
        >>> require_source("digits")
        >>> require_source("nowhere")
        Traceback (most recent call last):
        keras_qat.errors.DataError: There is no data set or folder of that name. ...
    """
    name = str(source)
    if name.lower() not in EMBEDDED and not name.startswith(TFDS_PREFIX) and not Path(source).is_dir():
        raise unknown_source(source)


def unknown_source(source: str | Path) -> DataError:
    """What to say of a data set that isn't there."""
    return DataError(
        f"There is no data set or folder of that name. Received: {str(source)!r}. "
        f"Give {', '.join(map(repr, sorted(EMBEDDED)))}, a folder of images (IMAGE, CLASS/IMAGE, or train/CLASS/IMAGE "
        f"and val/CLASS/IMAGE) or of TFRecord shards, or {TFDS_PREFIX}NAME."
    )


def require_image(path: Path) -> None:
    """Refuse what is no file.

    Raises:
        DataError: there is none.
    """
    if not path.is_file():
        raise DataError(
            f"Can't read the image {path}: there is no such file. Received: {str(path)!r}. Give the path of an image."
        )


def require_weights(weights: str | Path) -> None:
    """Refuse weights that are neither ImageNet's nor in a file.

    Raises:
        WeightsError: there is no such file.
    """
    if str(weights) != IMAGENET and not Path(weights).is_file():
        raise WeightsError(
            f"There is no such file of weights. Received: {str(weights)!r}. Give a .weights.h5, .h5 or .keras file, "
            f"{IMAGENET!r} to download, or None for random weights."
        )
