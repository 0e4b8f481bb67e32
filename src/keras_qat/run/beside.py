"""Paths and the runs they belong to: the folder of a run, or a file in one.

Keras is not imported here: the command line checks paths before it loads Keras.
"""

from pathlib import Path
from typing import Any

from keras_qat.errors import StorageError
from keras_qat.files import is_file, is_folder, read_json
from keras_qat.run.folder import RunFolder


def require_file_or_run(path: Path) -> None:
    """Refuse a path that is neither a file nor the folder of a run.

    Raises:
        StorageError: If the path is neither.

    Example:
        >>> require_file_or_run(Path("nowhere"))
        Traceback (most recent call last):
        keras_qat.errors.StorageError: There is no such file or folder. ...
    """
    if is_folder(path):
        RunFolder(path).require()
    elif not is_file(path):
        raise StorageError(
            f"There is no such file or folder. Received: {str(path)!r}. Give an ONNX file, or the folder of a run."
        )


def require_no_run_file(path: Path) -> None:
    """Refuse to replace a file of a run, whose results would then be those of another file.

    Raises:
        StorageError: If something of that name is in the folder of a run.
    """
    if path.exists() and RunFolder(path.parent).settings_path.is_file():
        raise StorageError(
            "A file of a run would be replaced, and its results would be those of another file. Received: "
            f"{str(path)!r}. Name another file with --output."
        )


def option_of(path: Path, name: str) -> Any:
    """An option of the run that a file belongs to, by the settings.json beside the file.

    Args:
        path: path of a model file, or the folder of a run.
        name: name of the option, such as `"seed"`.

    Returns:
        The option's value; `None` if the file belongs to no run, or the run does not have the option.

    Raises:
        StorageError: If settings.json can't be read.
        UserError: If settings.json is not JSON.
    """
    paths = (RunFolder(folder).settings_path for folder in (path, path.parent))
    saved = next((read_json(settings) for settings in paths if settings.is_file()), None)
    return saved.get(name) if isinstance(saved, dict) else None


def seed_for(path: Path, given: int | None) -> int:
    """The seed that was given; otherwise that of the run that a file belongs to; otherwise 0.

    Raises:
        StorageError: If settings.json can't be read.
        UserError: If settings.json is not JSON.

    Example:
        >>> seed_for(Path("nowhere/qat.onnx"), None), seed_for(Path("nowhere/qat.onnx"), 7)
        (0, 7)
    """
    return int(option_of(path, "seed") or 0) if given is None else given
