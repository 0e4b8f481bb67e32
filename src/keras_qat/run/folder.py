"""The folder of a run before it is filled: nothing of another run may be taken for this one's.

The folder of a run, read back: what it was made with, its models and its images.
"""

import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_qat import models, placement
from keras_qat.errors import DataError, StorageError, UserError
from keras_qat.files import RESULTS_FILE, SETTINGS_FILE, read_json, require_run, variant_file
from keras_qat.run.settings import Settings
from keras_qat.types import Placement

if TYPE_CHECKING:
    from keras_qat.data import Splits

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


@dataclass(frozen=True)
class SavedRun:
    """What `keras-qat run` or `keras-qat quantize` left in a folder.

    Args:
        folder: of the run.
        settings: it was made with; its `folder` is this one, wherever it was moved.
    """

    folder: Path
    settings: Settings

    def model_file(self, variant: str) -> Path:
        """The `.keras` file of a variant: baseline, ptq or qat.

        Raises:
            StorageError: the run has none.
        """
        return variant_file(self.folder, variant)

    def model(self, variant: str) -> Any:
        """The Keras model of a variant.

        Raises:
            StorageError: the run has none, or it can't be read.
        """
        return models.load_model_file(self.model_file(variant))

    def placement(self) -> Placement:
        """Where the run's Q/DQ pairs are.

        Raises:
            StorageError: the run has no placement.json.
            UserError: the file can't be understood.
        """
        return placement.load_placement(self.folder / placement.PLACEMENT_FILE)

    def facts(self) -> "models.ModelFacts":
        """What the run's files expect of their images.

        Raises:
            StorageError: the run says nothing of it.
            UserError: the file can't be understood.
        """
        path = self.folder / models.FACTS_FILE
        facts = models.read_model_facts(self.folder / "ptq.engine") if path.is_file() else None
        if facts is None:
            raise StorageError(
                f"The run has no {models.FACTS_FILE}. Received: {str(self.folder)!r}. Give the folder of a run that is "
                "done."
            )
        return facts

    def data(self) -> "Splits":
        """The run's images, cut and prepared as they were.

        Raises:
            DataError: they can't be read, or aren't the run's: images that calibrated would judge.
        """
        from keras_qat.run.start import load_splits

        facts = self.facts()
        try:
            found = load_splits(self.settings, facts.preprocessing, len(facts.class_names) or None)
        except DataError as error:
            raise DataError(
                f"The run's images can't be read. {error} If they were moved, or given relative to another "
                f"folder than {str(Path.cwd())!r}, say where they are now with --data."
            ) from error
        known = self.folder / DATA_FILE
        if known.is_file() and read_json(known) != found.fingerprints():
            raise DataError(
                "The images aren't those that the run was made with: some were added, removed or changed, and those "
                f"that judge may now be among those that calibrated. Received: {self.settings.data}, with "
                f"{len(found.train)} images to train. Make the run again, or say with --data where its images are."
            )
        return found


def open_run(folder: Path, *, data: str | None = None) -> SavedRun:
    """Read the settings of a run.

    Args:
        folder: of the run.
        data: where its images are now, if not where they were.

    Raises:
        StorageError: it is no folder of a run.
        UserError: its settings can't be understood.
    """
    settings = saved_settings(folder)
    return SavedRun(folder, settings if data is None else replace(settings, data=data))


def seed_for(file: Path, given: int | None) -> int:
    """The seed that was given; else that of the run that a file belongs to; else 0.

    Raises:
        StorageError: the settings can't be read.
        UserError: they aren't JSON.

    Example:
        >>> seed_for(Path("nowhere/qat.onnx"), None), seed_for(Path("nowhere/qat.onnx"), 7)
        (0, 7)
    """
    return int(setting_beside(file, "seed") or 0) if given is None else given


def setting_beside(file: Path, name: str) -> Any:
    """A setting of the run that a file belongs to; `None` where there is no settings.json beside it, or none in it.

    Args:
        file: of a model; or the folder of a run.
        name: of the setting, such as `"seed"`.

    Raises:
        StorageError: the settings can't be read.
        UserError: they aren't JSON.
    """
    path = (file if (file / SETTINGS_FILE).is_file() else file.parent) / SETTINGS_FILE
    value = read_json(path) if path.is_file() else None
    return value.get(name) if isinstance(value, dict) else None
