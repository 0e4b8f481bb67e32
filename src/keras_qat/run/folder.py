"""The folder of a run. `RunFolder` alone knows the names of its files, writes them and reads them back.

    settings.json   overrides.json   recipe.json      the options of the run
    data.json       preprocessing.json                fingerprints of its images; how its files expect them prepared
    placement.json  placement.md     ranges.json      where the Q/DQ pairs are, and the range of each tensor
    weight_ranges.json  bias_correction.json          the corrections after calibration
    training/                                         checkpoints; training-AUGMENTATION/ with an augmentation
    VARIANT.keras  VARIANT.onnx  VARIANT_saved_model/ the models: baseline, ptq, qat
    VARIANT_diagnosis.json                            where a quantized model loses accuracy
    results.json   results.md   report.html           the results

Other functions take the path of a file that may belong to a run. Keras is not imported here: the command line asks what
a folder holds before it loads Keras.
"""

import os
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_qat import calibration, evaluation, models, placement, report
from keras_qat.errors import StorageError, UserError
from keras_qat.files import (
    FACTS_FILE,
    RUN_MARKER,
    from_json_value,
    is_file,
    is_folder,
    is_marked,
    is_there,
    mark,
    read_json,
    remove_own,
    require_apart,
    require_own,
    write_json,
    write_text,
)
from keras_qat.run.settings import Settings
from keras_qat.types import BASELINE, PTQ, QAT

if TYPE_CHECKING:
    from keras_qat.placement import Overrides
    from keras_qat.training import Recipe
    from keras_qat.types import Placement

_RESULTS, _TABLE = "results.json", "results.md"
_FINGERPRINTS, _OVERRIDES, _RECIPE = "data.json", "overrides.json", "recipe.json"
_RANGES, _PLACEMENT_TABLE = "ranges.json", "placement.md"
_WEIGHT_RANGES, _BIAS_CORRECTION = "weight_ranges.json", "bias_correction.json"
_DIAGNOSIS = "_diagnosis.json"

DIAGNOSES = tuple(f"{variant.lower()}{_DIAGNOSIS}" for variant in (PTQ, QAT))
"""The files of a run that `keras-qat diagnose` may write."""

PAGE = "report.html"
"""The report of a run in its folder; of several runs, in the folder that holds them."""

_AGAIN = "Runs of this version write it."

_OF_ONE_RUN = ("model", "data", "target")
"""The settings that tell one run from another."""

_ENDINGS = (".keras", ".onnx", "_saved_model", _DIAGNOSIS)
"""What follows the name of a variant in the names of its files."""

_CLEARED = (
    *(_FINGERPRINTS, _RESULTS, _TABLE, PAGE, _RECIPE, _BIAS_CORRECTION, _WEIGHT_RANGES),
    *(f"{variant.lower()}{ending}" for variant in (BASELINE, PTQ, QAT) for ending in _ENDINGS),
)
"""What a new run removes first. Checkpoints stay, since each one holds what it belongs to."""

_GIVE_A_RUN = "Give the folder that `keras-qat run` named at its end, such as runs/resnet50-digits-onnxruntime."


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run.

    Args:
        path: path of the folder, which need not exist yet.

    Example:
        >>> RunFolder(Path("runs/digits")).model_path("PTQ").name
        'ptq.keras'
    """

    path: Path

    # --- paths

    @property
    def settings_path(self) -> Path:
        """The settings of the run, written at its start."""
        return self.path / RUN_MARKER

    @property
    def results_path(self) -> Path:
        """The results of the run, written at its end."""
        return self.path / _RESULTS

    @property
    def page_path(self) -> Path:
        """The report of the run."""
        return self.path / PAGE

    @property
    def placement_path(self) -> Path:
        """The placement of the run's Q/DQ pairs."""
        return self.path / placement.PLACEMENT_FILE

    @property
    def facts_path(self) -> Path:
        """The facts about the images that the run's files expect."""
        return self.path / FACTS_FILE

    def model_path(self, variant: str) -> Path:
        """The `.keras` file of a variant."""
        return self._of(variant, ".keras")

    def onnx_path(self, variant: str) -> Path:
        """The ONNX file of a variant."""
        return self._of(variant, ".onnx")

    def saved_model_path(self, variant: str) -> Path:
        """The SavedModel of a variant."""
        return self._of(variant, "_saved_model")

    def _of(self, variant: str, ending: str) -> Path:
        return self.path / f"{variant.lower()}{ending}"

    def checkpoints(self, augment: str) -> Path:
        """The folder of the checkpoints: one for each augmentation, so that each training finds its own.

        Example:
            >>> RunFolder(Path("runs")).checkpoints("crop").name, RunFolder(Path("runs")).checkpoints("none").name
            ('training-crop', 'training')
        """
        return self.path / ("training" if augment == "none" else f"training-{augment}")

    # --- checks

    @property
    def begun(self) -> bool:
        """Whether a run was begun in the folder, even if files of it are missing now."""
        return is_marked(self.path) or is_file(self.settings_path)

    @property
    def finished(self) -> bool:
        """Whether this is the folder of a finished run."""
        return is_file(self.results_path)

    def require(self) -> None:
        """Refuse a folder that is not one of a run.

        Raises:
            StorageError: If the folder has no settings.json.

        Example:
            >>> RunFolder(Path("nowhere")).require()
            Traceback (most recent call last):
            keras_qat.errors.StorageError: This is not the folder of a run: it has no settings.json. ...
        """
        if not is_file(self.settings_path):
            raise StorageError(
                f"This is not the folder of a run: it has no {RUN_MARKER}. Received: {str(self.path)!r}. {_GIVE_A_RUN}"
            )

    def require_finished(self) -> None:
        """Refuse a folder that is not one of a finished run.

        Raises:
            StorageError: If the folder has no results.json.

        Example:
            >>> RunFolder(Path("nowhere")).require_finished()
            Traceback (most recent call last):
            keras_qat.errors.StorageError: This is not the folder of a finished run: it has no results.json. ...
        """
        if not self.finished:
            unfinished = "the run hasn't finished: it" if is_file(self.settings_path) else "it"
            raise StorageError(
                f"This is not the folder of a finished run: {unfinished} has no {_RESULTS}. "
                f"Received: {str(self.path)!r}. {_GIVE_A_RUN}"
            )

    def require_model(self, variant: str) -> Path:
        """The `.keras` file of a variant, which must exist.

        Raises:
            StorageError: If the run does not have the file.

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

    def require_reusable(self, settings: Settings) -> None:
        """Refuse to replace what is not a run, or is the run of another model, of other data or for another target.

        Args:
            settings: settings of the run that will be written.

        Raises:
            StorageError: If the folder holds other files than those of a run, or inputs of this one.
            UserError: If the folder holds such a run.
        """
        require_own(self.path, "a run", remedy="Name a new or empty folder with --run-folder.")
        require_apart([self.path / name for name in _CLEARED], settings.inputs)
        earlier, wanted = self._earlier_settings(), settings.to_dict()
        differing = [
            f"{name} {earlier[name]!r}, and now {wanted[name]!r}"
            for name in _OF_ONE_RUN
            if name in earlier and _plain_name(earlier[name]) != _plain_name(wanted[name])
        ]
        if differing:
            raise UserError(
                f"This folder holds another run, which would be lost. Received: {str(self.path)!r}, made with "
                f"{'; '.join(differing)}. Name another folder with --run-folder, or move that one away."
            )

    def _earlier_settings(self) -> Mapping[str, Any]:
        """The settings of the run that is in the folder; empty if there is none, or its settings were damaged."""
        try:
            saved = read_json(self.settings_path)
        except UserError:
            return {}
        return saved if isinstance(saved, dict) else {}

    # --- reading

    def settings(self) -> Settings:
        """The settings of the run. Their `folder` is this one, wherever it was moved.

        Raises:
            StorageError: If this is not the folder of a run.
            UserError: If settings.json can't be understood.
        """
        self.require()
        return replace(Settings.from_dict(read_json(self.settings_path)), run_folder=self.path)

    def model(self, variant: str) -> Any:
        """The Keras model of a variant.

        Raises:
            StorageError: If the run does not have the model, or it can't be read.
        """
        return models.load_model_file(self.require_model(variant))

    def placement(self) -> "Placement":
        """The placement of the run's Q/DQ pairs.

        Raises:
            StorageError: If the run has no placement.json.
            UserError: If the file can't be understood.
        """
        return placement.load_placement(self.placement_path)

    def facts(self) -> "models.ModelFacts":
        """The facts about the images that the run's files expect.

        Raises:
            StorageError: If the run has no preprocessing.json.
            UserError: If the file can't be understood.
        """
        facts = models.read_facts_file(self.path)
        if facts is None:
            raise StorageError(
                f"The run has no {FACTS_FILE}. Received: {str(self.path)!r}. Give the folder of a run that is done."
            )
        return facts

    def fingerprints(self) -> Any:
        """The fingerprints of the run's images; `None` if the run did not write them."""
        path = self.path / _FINGERPRINTS
        return read_json(path) if path.is_file() else None

    def read(self) -> "report.RunFiles":
        """All files that a report is made of. Those other than results.json may be missing or damaged.

        Raises:
            StorageError: If this is not the folder of a finished run, or results.json can't be read.
            UserError: If results.json doesn't hold a record.
        """
        self.require_finished()
        record = report.load_record(self.results_path)
        absent: dict[str, str] = {}

        def optional(what: str, path: Path, load: Callable[[Path], Any], remedy: str = _AGAIN) -> Any:
            if path.is_file():
                try:
                    return load(path)
                except UserError as error:
                    absent[what] = str(error)
            else:
                absent[what] = f"The run has no {path.name}. {remedy}"
            return None

        def diagnosis(variant: str) -> Any:
            path = self._of(variant, _DIAGNOSIS)
            option = "" if variant == PTQ else f" --variant {variant.lower()}"
            remedy = f"`keras-qat diagnose {self.path}{option} --output {path}` writes it."
            return optional(variant, path, report.load_diagnosis, remedy)

        planned = optional("placement", self.placement_path, placement.load_placement)
        ranges = optional("ranges", self.path / _RANGES, calibration.Ranges.load)
        diagnoses = {row.name: diagnosis(row.name) for row in record.rows if row.name in {PTQ, QAT}}
        diagnoses = {variant: value for variant, value in diagnoses.items() if value is not None}
        return report.RunFiles(self.path, record, planned, ranges, diagnoses, absent)

    # --- writing

    def begin(self, settings: Settings) -> None:
        """Mark the folder, remove the files of an earlier run, and write the settings of this one.

        An interrupted run then has neither results nor files of another one.

        Args:
            settings: settings of the run.

        Raises:
            StorageError: If the folder can't be written.
        """
        mark(self.path, "run")
        remove_own(self.path, _CLEARED)
        write_json(self.settings_path, settings.to_dict())

    def write_overrides(self, overrides: "Overrides") -> None:
        """Write the rules that change the target's placement."""
        overrides.save(self.path / _OVERRIDES)

    def write_ranges(self, planned: "Placement", ranges: "calibration.Ranges") -> None:
        """Write the placement of the Q/DQ pairs, as a value and as a table, and the range of each quantized tensor."""
        write_text(self.path / _PLACEMENT_TABLE, placement.explain(planned, ranges=ranges) + "\n")
        ranges.save(self.path / _RANGES)
        placement.save_placement(planned, self.placement_path)

    def write_repairs(self, weight_ranges: Mapping[str, Any] | None, bias_correction: Mapping[str, Any] | None) -> None:
        """Write the corrections after calibration; `None` is not written."""
        for name, value in ((_WEIGHT_RANGES, weight_ranges), (_BIAS_CORRECTION, bias_correction)):
            if value is not None:
                write_json(self.path / name, value)

    def write_recipe(self, recipe: "Recipe") -> None:
        """Write the recipe of fine-tuning."""
        write_json(self.path / _RECIPE, recipe.to_dict())

    def write_inputs(self, settings: Settings, facts: "models.ModelFacts", fingerprints: Mapping[str, Any]) -> None:
        """Write the settings, the facts about the images that the files expect, and the images' fingerprints."""
        write_json(self.settings_path, settings.to_dict())
        write_json(self.facts_path, facts.to_dict())
        write_json(self.path / _FINGERPRINTS, fingerprints)

    def write_diagnosis(self, variant: str, diagnosis: "evaluation.Diagnosis") -> None:
        """Write where a variant loses accuracy."""
        write_json(self._of(variant, _DIAGNOSIS), evaluation.diagnosis_record(diagnosis))

    def write_record(self, record: "report.Record") -> None:
        """Write the results: as values, as a table, and as a page."""
        write_json(self.results_path, record.to_dict())
        write_text(self.path / _TABLE, report.markdown(record))
        self.write_page()

    def write_page(self) -> Path:
        """Write the report of the run, made of its other files.

        Returns:
            The path of the page, `report.html`.

        Raises:
            StorageError: If this is not the folder of a finished run, or can't be written.
            UserError: If results.json doesn't hold a record.
        """
        return report.write_page([self.read()], self.page_path)


def _plain_name(value: Any) -> str:
    """A model, data set or target such that other spellings of the same one are equal."""
    path = Path(str(value))
    # `photos`, `./photos` and its absolute path are one folder; `ResNet50` and `resnet50` are one network.
    return str(path.resolve()) if is_there(path) else os.path.normpath(str(value)).lower()


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


def require_not_of_run(path: Path, allowed: Container[str] = ()) -> None:
    """Refuse to write what is not a run's result to the path of a run's file.

    Args:
        path: path of the file that will be written.
        allowed: names of files of a run that may be replaced.

    Raises:
        StorageError: If it is one of the files of the run whose folder it is in.
    """
    if not is_file(path.parent / RUN_MARKER):
        return
    others = (RUN_MARKER, _OVERRIDES, _RANGES, _PLACEMENT_TABLE, placement.PLACEMENT_FILE, FACTS_FILE)
    if path.name in {*_CLEARED, *others} and path.name not in allowed:
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
    saved = option_of(path, "seed") if given is None else given
    if saved is None:
        return 0
    problem = f"The {RUN_MARKER} beside {path} doesn't hold a seed"
    return from_json_value(int, saved, problem=problem, remedy="Correct it, or give the seed.")
