"""The folder of a run before it is filled: nothing of another run may be taken for this one's."""

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from keras_qat.errors import UserError
from keras_qat.paths import RESULTS_FILE, SETTINGS_FILE, require_run
from keras_qat.settings import Settings
from keras_qat.storage import read_json

DATA_FILE = "data.json"
"""The fingerprints of the images, by which a run that is read back knows them."""

_OF_ONE_RUN = ("model", "data", "target")

_MADE = (
    *(SETTINGS_FILE, DATA_FILE, RESULTS_FILE, "results.md", "report.html", "recipe.json"),
    *("bias_correction.json", "weight_ranges.json"),
    *("baseline*", "ptq*", "qat*"),
)
"""What a run leaves, without its checkpoints: those know by themselves what they belong to."""


def saved_settings(folder: Path) -> Settings:
    """What the run of a folder was made with; its `folder` is this one, wherever it was moved.

    Args:
        folder: of the run.

    Raises:
        StorageError: it is no folder of a run.
        UserError: its settings can't be understood.
    """
    require_run(folder)
    return replace(Settings.from_dict(read_json(folder / SETTINGS_FILE)), run_folder=folder)


def require_same_run(settings: Settings) -> None:
    """Refuse a folder that holds the run of another model, of other data or for another target.

    Raises:
        UserError: it does.
    """
    path = settings.folder / SETTINGS_FILE
    earlier = read_json(path) if path.is_file() else {}
    wanted = settings.to_dict()
    other = [name for name in _OF_ONE_RUN if name in earlier and _place(earlier[name]) != _place(wanted[name])]
    if other:
        differing = "; ".join(f"{name} {earlier[name]!r}, and now {wanted[name]!r}" for name in other)
        raise UserError(
            f"This folder holds another run, which would be lost. Received: {str(settings.folder)!r}, made with "
            f"{differing}. Name another folder with --run-folder, or move that one away."
        )


def clear(folder: Path) -> None:
    """Remove what an earlier run left, so that a run that was cut off has no results, and none of another's."""
    for pattern in _MADE:
        for path in sorted(folder.glob(pattern)):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _place(value: Any) -> Any:
    return os.path.normpath(value) if isinstance(value, str) else value
