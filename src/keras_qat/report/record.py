"""The result of a run as one frozen value, from which every report is made."""

from dataclasses import asdict, dataclass
from typing import Any

from keras_qat.evaluation import Latency, TensorError
from keras_qat.report.environment import Environment
from keras_qat.training import EpochRecord


@dataclass(frozen=True)
class Row:
    """One variant of the model: Baseline, PTQ or QAT.

    Shares are 0 to 1. `None` is what was skipped.

    Args:
        name: of the variant.
        keras_top1: accuracy of the Keras model; as the other three, `None` for images without labels.
        keras_top5: the label is among its five best.
        keras_latency: of the Keras model, batch 1.
        deployed_top1: accuracy of the ONNX file in its engine.
        deployed_top5: likewise.
        deployed_latency: of the ONNX file, batch 1.
        agreement: share of images on which the deployed file says what the float Keras model says.
        simulation_agreement: share on which the deployed file says what its own Keras model says.
        simulation_sqnr: of the file's scores against those of its own Keras model, in dB.
        keras_agreement: share on which the Keras model says what the float Keras model says.
        tensor_errors: file against simulation at every quantized tensor; empty for a float model.
        size_bytes: of the ONNX file.
    """

    name: str
    keras_top1: float | None
    keras_top5: float | None
    keras_latency: Latency
    deployed_top1: float | None
    deployed_top5: float | None
    deployed_latency: Latency
    agreement: float | None
    simulation_agreement: float
    simulation_sqnr: float | None
    keras_agreement: float | None
    tensor_errors: tuple[TensorError, ...]
    size_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """The row as JSON can hold it."""
        return {**asdict(self), "tensor_errors": [error.to_dict() for error in self.tensor_errors]}


@dataclass(frozen=True)
class Record:
    """A whole run.

    Args:
        model: name of the network.
        data: name of the data set.
        target: the engine that the placement was made for.
        images: how many validation images were evaluated.
        engine: where the deployed files ran.
        rows: the variants.
        best_epoch: which epoch of fine-tuning the QAT row is; 0 is PTQ as it was, `None` if not fine-tuned.
        history: the epochs of fine-tuning, from 0 on.
        settings: all settings.
        environment: machine and versions.
        seconds: how long each stage took.
    """

    model: str
    data: str
    target: str
    images: int
    engine: str
    rows: tuple[Row, ...]
    best_epoch: int | None
    history: tuple[EpochRecord, ...]
    settings: dict[str, Any]
    environment: Environment
    seconds: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """The record as JSON can hold it."""
        return {**asdict(self), "rows": [row.to_dict() for row in self.rows]}
