"""The JSON files of a run, read back; and why those that are missing are."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_qat.calibration import Ranges
from keras_qat.errors import UserError
from keras_qat.files import RESULTS_FILE, require_finished_run
from keras_qat.placement import PLACEMENT_FILE, load_placement
from keras_qat.report.diagnosis_text import DiagnosisFile, load_diagnosis
from keras_qat.report.record import Record, load_record
from keras_qat.types import Placement


@dataclass(frozen=True)
class RunFiles:
    """All that a report is made of.

    Args:
        folder: of the run.
        record: of `results.json`.
        placement: of `placement.json`, or `None`.
        ranges: of `ranges.json`, or `None`.
        diagnoses: {name of a row: its diagnosis}, of `ptq_diagnosis.json` and `qat_diagnosis.json`, as far as
            the record has such rows.
        absent: {name of a file: why it isn't there, one line}.
    """

    folder: Path
    record: Record
    placement: Placement | None
    ranges: Ranges | None
    diagnoses: Mapping[str, DiagnosisFile]
    absent: Mapping[str, str]


def read_run(folder: Path) -> RunFiles:
    """Read the files of a run. All but `results.json` may be missing or damaged: a report does without.

    Raises:
        StorageError: it isn't the folder of a run, or `results.json` can't be read.
        UserError: `results.json` doesn't hold a record.
    """
    require_finished_run(folder)
    record = load_record(folder / RESULTS_FILE)
    files = {row.name: _DIAGNOSES[row.name] for row in record.rows if row.name in _DIAGNOSES}
    optional = {name: _OPTIONAL[name] for name in (PLACEMENT_FILE, "ranges.json", *files.values())}
    found = {name: _read(folder, name, load, hint) for name, (load, hint) in optional.items()}
    values = {name: value for name, (value, _) in found.items()}
    return RunFiles(
        folder=folder,
        record=record,
        placement=values[PLACEMENT_FILE],
        ranges=values["ranges.json"],
        diagnoses={row: values[name] for row, name in files.items() if values[name] is not None},
        absent={name: reason for name, (_, reason) in found.items() if reason},
    )


_DIAGNOSES: Mapping[str, str] = {"PTQ": "ptq_diagnosis.json", "QAT": "qat_diagnosis.json"}
"""The diagnosis of each row that can have one."""

_AGAIN = "Runs of this version write it."

_OPTIONAL: Mapping[str, tuple[Callable[[Path], Any], str]] = {
    PLACEMENT_FILE: (load_placement, _AGAIN),
    "ranges.json": (Ranges.load, _AGAIN),
    "ptq_diagnosis.json": (load_diagnosis, "`keras-qat diagnose {folder} --output {path}` writes it."),
    "qat_diagnosis.json": (load_diagnosis, "`keras-qat diagnose {folder} --variant qat --output {path}` writes it."),
}
"""{name: (how it is read, what writes it)}."""


def _read(folder: Path, name: str, load: Callable[[Path], Any], hint: str) -> tuple[Any, str]:
    """The value of a file and no reason, or `None` and why."""
    path = folder / name
    if not path.is_file():
        return None, f"The run has no {name}. {hint.format(folder=folder, path=path)}"
    try:
        return load(path), ""
    except UserError as error:
        return None, str(error)
