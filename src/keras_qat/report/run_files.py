"""The JSON files of a run, read back; and why those that are missing are."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from keras_qat.calibration import Ranges
from keras_qat.report.diagnosis_text import DiagnosisFile
from keras_qat.report.record import Record
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
