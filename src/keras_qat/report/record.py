"""The result of a run as one frozen value, from which every report is made, and the results.json that holds it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_qat import calibration, evaluation, machine, training, verify
from keras_qat.errors import UserError
from keras_qat.files import from_json_value, read_json, to_json_value
from keras_qat.report.diagnosis_text import DiagnosisFile
from keras_qat.types import BASELINE, OutputTask, Placement


@dataclass(frozen=True)
class Row:
    """One variant of the model: Baseline, PTQ or QAT.

    Shares are 0 to 1. `None` is what was skipped, and what a run has whose model isn't a classifier with one output;
    the figures of such a run are those of its `outputs`.

    Args:
        name: of the variant.
        keras_top1: accuracy of the Keras model; as the other three, `None` for images without labels.
        keras_top5: share of images whose label is among the five best classes.
        keras_latency: of the Keras model, batch 1.
        deployed_top1: accuracy of the ONNX file in its engine.
        deployed_top5: likewise.
        deployed_latency: of the ONNX file, batch 1.
        agreement: share of images for which the deployed file gives the class that the float Keras model gives.
        simulation_agreement: share for which the deployed file gives the class that its own Keras model gives.
        simulation_sqnr: of the file's scores against those of its own Keras model, in dB.
        keras_agreement: share for which the Keras model gives the class that the float Keras model gives.
        tensor_errors: file against simulation at every quantized tensor; empty for a float model.
        size_bytes: of the ONNX file.
        outputs: each output of the deployed file, against the labels and the float Keras model; empty for a classifier
            with one output, like the other two.
        keras_outputs: each output of the Keras model, likewise.
        simulation_outputs: each output of the deployed file against its own Keras model.
    """

    name: str
    keras_top1: float | None
    keras_top5: float | None
    keras_latency: evaluation.Latency
    deployed_top1: float | None
    deployed_top5: float | None
    deployed_latency: evaluation.Latency
    agreement: float | None
    simulation_agreement: float | None
    simulation_sqnr: float | None
    keras_agreement: float | None
    tensor_errors: tuple[verify.TensorError, ...]
    size_bytes: int
    outputs: tuple[evaluation.OutputScores, ...] = ()
    keras_outputs: tuple[evaluation.OutputScores, ...] = ()
    simulation_outputs: tuple[evaluation.OutputScores, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The row as JSON can hold it; what only other models than classifiers have is left out where it is empty."""
        value = {**to_json_value(self), "tensor_errors": [error.to_dict() for error in self.tensor_errors]}
        for name in ("keras_latency", "deployed_latency"):
            value[name] = {key: it for key, it in value[name].items() if (key, it) != ("batch", 1)}
        return {name: it for name, it in value.items() if it or name not in _OF_TASKS}


_OF_TASKS = frozenset({"outputs", "keras_outputs", "simulation_outputs"})


@dataclass(frozen=True)
class Record:
    """A whole run.

    Args:
        model: name of the network.
        data: name of the data set.
        target: the engine that the placement was made for.
        images: the number of validation images that were evaluated.
        engine: where the deployed files ran.
        rows: the variants.
        best_epoch: the epoch of fine-tuning that the QAT row shows; 0 is PTQ as it was, `None` if not fine-tuned.
        history: the epochs of fine-tuning, from 0 on.
        settings: all settings.
        environment: machine and versions.
        seconds: the time that each stage took.
        tasks: what each output of the model says; empty for a classifier with one output.
    """

    model: str
    data: str
    target: str
    images: int
    engine: str
    rows: tuple[Row, ...]
    best_epoch: int | None
    history: tuple[training.EpochRecord, ...]
    settings: dict[str, Any]
    environment: machine.Environment
    seconds: dict[str, float]
    tasks: tuple[OutputTask, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON can hold it; without tasks for a classifier with one output."""
        value = {**to_json_value(self), "rows": [row.to_dict() for row in self.rows]}
        return {name: it for name, it in value.items() if it or name != "tasks"}


@dataclass(frozen=True)
class RunFiles:
    """The files of a run that a report is made of, read back.

    Args:
        folder: of the run.
        record: from its results.
        placement: where its Q/DQ pairs are; `None` if the file is missing or damaged.
        ranges: of its tensors; `None` likewise.
        diagnoses: {name of a row: its diagnosis}, for the rows that have one.
        absent: {"placement", "ranges" or name of a row: why the file could not be read, on one line}.
    """

    folder: Path
    record: Record
    placement: Placement | None
    ranges: calibration.Ranges | None
    diagnoses: Mapping[str, DiagnosisFile]
    absent: Mapping[str, str]


def float_row(record: Record) -> Row | None:
    """The float model's row; `None` where the run skipped it."""
    return next((row for row in record.rows if row.name == BASELINE), None)


def chosen_row(record: Record) -> Row | None:
    """The last quantized row: QAT, or PTQ without fine-tuning; `None` for a record of the float model alone."""
    return next((row for row in reversed(record.rows) if row.name != BASELINE), None)


_LEAST, _MOST = 1e-9, 1e15
"""The bounds of milliseconds, bytes and numbers of images, within which their ratios are numbers."""


def load_record(path: Path) -> Record:
    """The record of a results.json that `keras-qat run` wrote.

    Args:
        path: the file. A file from before the history of fine-tuning was kept is read with an empty history.

    Raises:
        StorageError: If `path` can't be read.
        UserError: If the file isn't JSON, or doesn't hold a record, or a number of it is impossible.
    """
    value = read_json(path)
    problem = f"{path} doesn't hold the results of a run"
    remedy = "Give the folder of a run that `keras-qat run` of this version finished."
    if isinstance(value, dict):
        value = {"history": [], **value}
    record = from_json_value(
        Record, value, problem=problem, remedy=remedy, hooks={verify.TensorError: verify.TensorError.from_dict}
    )
    if not record.rows:
        raise UserError(f"{problem}: it has no rows. Received: {str(path)!r}. {remedy}")
    for name, number in _positive(record):
        if not _LEAST <= number <= _MOST:
            raise UserError(f"{problem}: `{name}` must be from {_LEAST:g} to {_MOST:g}. Received: {number}. {remedy}")
    return record


def _positive(record: Record) -> Iterator[tuple[str, float]]:
    """The numbers that texts and charts divide by, with their places in the file."""
    yield "images", record.images
    for i, row in enumerate(record.rows):
        yield f"rows[{i}].size_bytes", row.size_bytes
        for name in ("keras_latency", "deployed_latency"):
            yield f"rows[{i}].{name}.median_ms", getattr(row, name).median_ms


def setting_facts(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Each setting and its value.

    Example:
        >>> setting_facts({"overrides": None, "bias_correction": True, "learning_rate": 3e-6})
        [('overrides', '–'), ('bias_correction', 'yes'), ('learning_rate', '3e-06')]
    """
    return [(name, _text(value)) for name, value in settings.items()]


def environment_facts(environment: machine.Environment) -> list[tuple[str, str]]:
    """The machine, then the versions."""
    return [
        ("CPU", environment.cpu),
        ("Cores", str(environment.cores)),
        ("VNNI", "unknown" if environment.vnni is None else _text(environment.vnni)),
        ("System", environment.system),
        ("Python", environment.python),
        *environment.packages.items(),
    ]


def _text(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {None: "–", True: "yes", False: "no"}[value]
    return str(value)
