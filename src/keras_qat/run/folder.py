"""The folder of a run: the one place that knows what its files are called, writes them and reads them back.

    settings.json   overrides.json   recipe.json      what the run was asked for
    data.json       preprocessing.json                fingerprints of its images; what its files expect of images
    placement.json  placement.md     ranges.json      where the Q/DQ pairs are, and the range of each tensor
    weight_ranges.json  bias_correction.json          what was repaired after calibration
    training/                                         checkpoints; training-AUGMENTATION/ with an augmentation
    VARIANT.keras  VARIANT.onnx  VARIANT_saved_model/ the models: baseline, ptq, qat
    VARIANT_diagnosis.json                            where a quantized one loses accuracy
    results.json   results.md   report.html           what came of it

Keras is not imported here: the command line asks what a folder holds before it loads Keras.
"""

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_qat import calibration, evaluation, models, placement, report
from keras_qat.errors import StorageError, UserError
from keras_qat.files import is_file, is_folder, read_json, write_json, write_text
from keras_qat.run.settings import Settings
from keras_qat.types import BASELINE, PTQ, QAT

if TYPE_CHECKING:
    from keras_qat.calibration import Ranges
    from keras_qat.placement import Overrides
    from keras_qat.training import Recipe
    from keras_qat.types import Placement

_SETTINGS = "settings.json"
_RESULTS = "results.json"
_RANGES = "ranges.json"
_FINGERPRINTS = "data.json"
_OVERRIDES, _RECIPE = "overrides.json", "recipe.json"
_WEIGHT_RANGES, _BIAS_CORRECTION = "weight_ranges.json", "bias_correction.json"
_TABLE, _PLACEMENT_TABLE = "results.md", "placement.md"
_DIAGNOSIS = "_diagnosis.json"

PAGE = "report.html"
"""The report of a run in its folder; of several runs, in the folder that holds them."""

_AGAIN = "Runs of this version write it."

_OF_ONE_RUN = ("model", "data", "target")
"""The settings that tell one run from another."""

_CLEARED = (
    *(_SETTINGS, _FINGERPRINTS, _RESULTS, _TABLE, PAGE, _RECIPE, _BIAS_CORRECTION, _WEIGHT_RANGES),
    *(f"{variant.lower()}*" for variant in (BASELINE, PTQ, QAT)),
)
"""What a new run removes first. Checkpoints stay: they know by themselves what they belong to."""


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run.

    Args:
        path: of the folder, which need not exist yet.

    Example:
        >>> RunFolder(Path("runs/digits")).model_path("PTQ").name
        'ptq.keras'
    """

    path: Path

    # --- where things are

    @property
    def settings_path(self) -> Path:
        """What the run was made with: there from its start."""
        return self.path / _SETTINGS

    @property
    def results_path(self) -> Path:
        """What came of the run: there at its end."""
        return self.path / _RESULTS

    @property
    def page_path(self) -> Path:
        """The report of the run."""
        return self.path / PAGE

    def model_path(self, variant: str) -> Path:
        """The `.keras` file of a variant."""
        return self._of(variant, ".keras")

    def onnx_path(self, variant: str) -> Path:
        """The ONNX file of a variant."""
        return self._of(variant, ".onnx")

    def saved_model_path(self, variant: str) -> Path:
        """The SavedModel of a variant."""
        return self._of(variant, "_saved_model")

    def checkpoints(self, augment: str) -> Path:
        """The folder of the checkpoints: one for each augmentation, so that each training finds its own.

        Example:
            >>> RunFolder(Path("runs")).checkpoints("crop").name, RunFolder(Path("runs")).checkpoints("none").name
            ('training-crop', 'training')
        """
        return self.path / ("training" if augment == "none" else f"training-{augment}")

    def _of(self, variant: str, ending: str) -> Path:
        return self.path / f"{variant.lower()}{ending}"

    # --- what is there

    def require(self) -> None:
        """Refuse a folder that is not one of a run.

        Raises:
            StorageError: If it has no settings.json.

        Example:
            >>> RunFolder(Path("nowhere")).require()
            Traceback (most recent call last):
            keras_qat.errors.StorageError: This is not the folder of a run: it has no settings.json. ...
        """
        if not is_file(self.settings_path):
            raise StorageError(
                f"This is not the folder of a run: it has no {_SETTINGS}. Received: {str(self.path)!r}. Give the "
                "folder that `keras-qat run` named at its end, such as runs/resnet50-digits-onnxruntime."
            )

    @property
    def finished(self) -> bool:
        """Whether this is the folder of a finished run."""
        return is_file(self.results_path)

    def require_finished(self) -> None:
        """Refuse a folder that is not one of a finished run.

        Raises:
            StorageError: If it has no results.json.

        Example:
            >>> RunFolder(Path("nowhere")).require_finished()
            Traceback (most recent call last):
            keras_qat.errors.StorageError: This is not the folder of a finished run: it has no results.json. ...
        """
        if not self.finished:
            unfinished = "the run hasn't finished: it" if is_file(self.settings_path) else "it"
            raise StorageError(
                f"This is not the folder of a finished run: {unfinished} has no {_RESULTS}. Received: "
                f"{str(self.path)!r}. Give the folder that `keras-qat run` named at its end, such as "
                "runs/resnet50-digits-onnxruntime."
            )

    def require_model(self, variant: str) -> Path:
        """The `.keras` file of a variant.

        Raises:
            StorageError: If the run does not have it.

        Example:
            >>> RunFolder(Path("nowhere")).require_model("QAT")
            Traceback (most recent call last):
            keras_qat.errors.StorageError: The run has no qat.keras. ...
        """
        path = self.model_path(variant)
        if not is_file(path):
            present = ", ".join(sorted(file.name for file in self.path.glob("*.keras"))) or "no .keras file"
            raise StorageError(
                f"The run has no {path.name}. Received: {str(self.path)!r}, which holds {present}. Let `keras-qat "
                "run` finish; with --skip-fine-tuning, and by `keras-qat quantize`, it makes no qat.keras."
            )
        return path

    def missing(self, settings: Settings) -> tuple[str, ...]:
        """The names of the files that a finished run with these settings has and this folder has not.

        Args:
            settings: of the run.
        """
        variants = (BASELINE, PTQ) if settings.skip_fine_tuning else (BASELINE, PTQ, QAT)
        expected = [
            *(self.path / name for name in (_SETTINGS, _FINGERPRINTS, models.FACTS_FILE, _OVERRIDES)),
            *(self.path / name for name in (placement.PLACEMENT_FILE, _PLACEMENT_TABLE, _RANGES)),
            *(path(variant) for variant in variants for path in (self.model_path, self.onnx_path)),
            *([] if settings.skip_fine_tuning else [self.path / _RECIPE]),
            *([] if settings.skip_diagnosis else [self._of(name, _DIAGNOSIS) for name in variants[1:]]),
            *([] if settings.skip_saved_model else [self.saved_model_path(variant) for variant in variants]),
            *(self.path / name for name in (_RESULTS, _TABLE, PAGE)),
        ]
        return tuple(path.name for path in expected if not path.exists())

    def require_same_run(self, settings: Settings) -> None:
        """Refuse to write a run into the folder of another model's, other data's or another target's run.

        Args:
            settings: of the run that will be written.

        Raises:
            UserError: If the folder holds such a run.
        """
        earlier = read_json(self.settings_path) if self.settings_path.is_file() else {}
        wanted = settings.to_dict()
        other = [name for name in _OF_ONE_RUN if name in earlier and _place(earlier[name]) != _place(wanted[name])]
        if other:
            differing = "; ".join(f"{name} {earlier[name]!r}, and now {wanted[name]!r}" for name in other)
            raise UserError(
                f"This folder holds another run, which would be lost. Received: {str(self.path)!r}, made with "
                f"{differing}. Name another folder with --run-folder, or move that one away."
            )

    # --- reading

    def settings(self) -> Settings:
        """What the run was made with; their `folder` is this one, wherever it was moved.

        Raises:
            StorageError: If this is not the folder of a run.
            UserError: If its settings can't be understood.
        """
        self.require()
        return replace(Settings.from_dict(read_json(self.settings_path)), run_folder=self.path)

    def model(self, variant: str) -> Any:
        """The Keras model of a variant.

        Raises:
            StorageError: If the run does not have it, or it can't be read.
        """
        return models.load_model_file(self.require_model(variant))

    def placement(self) -> "Placement":
        """Where the run's Q/DQ pairs are.

        Raises:
            StorageError: If the run has no placement.json.
            UserError: If the file can't be understood.
        """
        return placement.load_placement(self.path / placement.PLACEMENT_FILE)

    def facts(self) -> "models.ModelFacts":
        """What the run's files expect of their images.

        Raises:
            StorageError: If the run has no preprocessing.json.
            UserError: If the file can't be understood.
        """
        facts = models.read_facts_file(self.path)
        if facts is None:
            raise StorageError(
                f"The run has no {models.FACTS_FILE}. Received: {str(self.path)!r}. Give the folder of a run that is "
                "done."
            )
        return facts

    def read(self) -> "report.RunFiles":
        """All that a report is made of. All files but results.json may be missing or damaged.

        Raises:
            StorageError: If this is not the folder of a finished run, or results.json can't be read.
            UserError: If results.json doesn't hold a record.
        """
        self.require_finished()
        record = report.load_record(self.results_path)
        absent: dict[str, str] = {}

        def optional(what: str, path: Path, load: Callable[[Path], Any], remedy: str = _AGAIN) -> Any:
            if not path.is_file():
                absent[what] = f"The run has no {path.name}. {remedy}"
                return None
            try:
                return load(path)
            except UserError as error:
                absent[what] = str(error)
                return None

        planned = optional("placement", self.path / placement.PLACEMENT_FILE, placement.load_placement)
        ranges = optional("ranges", self.path / _RANGES, calibration.Ranges.load)
        diagnoses = {}
        for variant in (row.name for row in record.rows if row.name in {PTQ, QAT}):
            path = self._of(variant, _DIAGNOSIS)
            option = "" if variant == PTQ else f" --variant {variant.lower()}"
            remedy = f"`keras-qat diagnose {self.path}{option} --output {path}` writes it."
            diagnoses[variant] = optional(variant, path, report.load_diagnosis, remedy)
        return report.RunFiles(
            folder=self.path,
            record=record,
            placement=planned,
            ranges=ranges,
            diagnoses={variant: diagnosis for variant, diagnosis in diagnoses.items() if diagnosis is not None},
            absent=absent,
        )

    def fingerprints(self) -> Any:
        """The fingerprints of the run's images; `None` where the run did not write them."""
        path = self.path / _FINGERPRINTS
        return read_json(path) if path.is_file() else None

    # --- writing

    def clear(self) -> None:
        """Remove what an earlier run left, so that a run that is cut off has no results, and none of another's."""
        for pattern in _CLEARED:
            for path in sorted(self.path.glob(pattern)):
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def write_overrides(self, overrides: "Overrides") -> None:
        """Write the rules that change the target's placement."""
        overrides.save(self.path / _OVERRIDES)

    def write_ranges(self, planned: "Placement", ranges: "Ranges") -> None:
        """Write where the Q/DQ pairs are, as a value and as a table, and the range of each quantized tensor."""
        write_text(self.path / _PLACEMENT_TABLE, placement.explain(planned, ranges=ranges) + "\n")
        ranges.save(self.path / _RANGES)
        placement.save_placement(planned, self.path / placement.PLACEMENT_FILE)

    def write_repairs(self, weight_ranges: Mapping[str, Any] | None, bias_correction: Mapping[str, Any] | None) -> None:
        """Write what was repaired after calibration; `None` where nothing was."""
        for name, value in ((_WEIGHT_RANGES, weight_ranges), (_BIAS_CORRECTION, bias_correction)):
            if value is not None:
                write_json(self.path / name, value)

    def write_recipe(self, recipe: "Recipe") -> None:
        """Write how the quantized model is fine-tuned."""
        write_json(self.path / _RECIPE, recipe.to_dict())

    def write_inputs(self, settings: Settings, facts: "models.ModelFacts", fingerprints: Mapping[str, Any]) -> None:
        """Write what the run was made with: settings, what its files expect of images, and which images."""
        write_json(self.settings_path, settings.to_dict())
        write_json(self.path / models.FACTS_FILE, facts.to_dict())
        write_json(self.path / _FINGERPRINTS, fingerprints)

    def write_diagnosis(self, variant: str, diagnosis: "evaluation.Diagnosis") -> None:
        """Write where a variant loses accuracy."""
        write_json(self._of(variant, _DIAGNOSIS), evaluation.diagnosis_record(diagnosis))

    def write_record(self, record: "report.Record") -> None:
        """Write what came of the run: as values, as a table, and as a page."""
        write_json(self.results_path, record.to_dict())
        write_text(self.path / _TABLE, report.markdown(record))
        self.write_page()

    def write_page(self) -> Path:
        """Write the report of the run from its other files.

        Returns:
            The path of the page, `report.html`.

        Raises:
            StorageError: If this is not the folder of a finished run, or can't be written.
            UserError: If results.json doesn't hold a record.
        """
        return report.write_page([self.read()], self.page_path)


def folder_of(file: Path) -> RunFolder | None:
    """The run that a file belongs to; `None` where there is no settings.json beside it.

    Args:
        file: of a model; or the folder of a run.

    Example:
        >>> folder_of(Path("nowhere/qat.onnx"))
    """
    return next((run for run in (RunFolder(file), RunFolder(file.parent)) if run.settings_path.is_file()), None)


def option_of(file: Path, name: str) -> Any:
    """An option of the run that a file belongs to; `None` where it belongs to none, or the run doesn't tell.

    Args:
        file: of a model; or the folder of a run.
        name: of the option, such as `"seed"`.

    Raises:
        StorageError: If the settings can't be read.
        UserError: If they aren't JSON.
    """
    run = folder_of(file)
    value = None if run is None else read_json(run.settings_path)
    return value.get(name) if isinstance(value, dict) else None


def seed_for(file: Path, given: int | None) -> int:
    """The seed that was given; else that of the run that a file belongs to; else 0.

    Raises:
        StorageError: If the settings can't be read.
        UserError: If they aren't JSON.

    Example:
        >>> seed_for(Path("nowhere/qat.onnx"), None), seed_for(Path("nowhere/qat.onnx"), 7)
        (0, 7)
    """
    return int(option_of(file, "seed") or 0) if given is None else given


def require_file_or_run(path: Path) -> None:
    """Refuse a path that is neither a file nor the folder of a run.

    Raises:
        StorageError: If it is neither.

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
    """Refuse to replace a file of a run: its results would be those of another file.

    Raises:
        StorageError: If something of that name stands in the folder of a run.
    """
    if path.exists() and RunFolder(path.parent).settings_path.is_file():
        raise StorageError(
            "A file of a run would be replaced, and its results would be those of another file. Received: "
            f"{str(path)!r}. Name another file with --output."
        )


def _place(value: Any) -> Any:
    return os.path.normpath(value) if isinstance(value, str) else value
