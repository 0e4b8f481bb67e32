"""What a verification found: frozen values."""

from dataclasses import asdict, dataclass
from typing import Any

from keras_qat.evaluation import TensorError
from keras_qat.export import Finding
from keras_qat.types import Precision


@dataclass(frozen=True)
class FileCheck:
    """One file held to what it was made from.

    Shares are 0 to 1. `None` is what wasn't looked at.

    Args:
        name: what a message calls the file.
        path: of the file.
        precision: of what the file doesn't quantize.
        size_bytes: of the file.
        pairs: how many activations of the file have a Q/DQ pair.
        edges: how many edges of the placement the file was held to; `None` without a placement.
        findings: where its structure isn't as was planned, the first layer of the network first.
        tensors: file against simulation at every quantized tensor and at the outputs; empty if `findings` has some.
        sqnr: of its outputs against the Keras model's, in dB.
        agreement: share of images on which the two give the same class.
        keras_agreement: share on which the quantized Keras model says what the float one says.
        images: how many arrays of input were compared.
        miss: the first promise that the file doesn't keep, in words; `None` for a right file.
        held: whether anything is promised of the file; else it was only compared.
    """

    name: str
    path: str
    precision: Precision
    size_bytes: int
    pairs: int
    edges: int | None
    findings: tuple[Finding, ...]
    tensors: tuple[TensorError, ...]
    sqnr: float | None
    agreement: float | None
    keras_agreement: float | None
    images: int
    miss: str | None
    held: bool = True

    @property
    def ok(self) -> bool:
        """Whether the file keeps all that is promised."""
        return self.miss is None

    @property
    def worst(self) -> TensorError | None:
        """The tensor with the largest error; of several, that with most numbers off."""
        return max(self.tensors, key=lambda error: (error.worst, error.differing), default=None)

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON can hold it."""
        return {**asdict(self), "tensors": [error.to_dict() for error in self.tensors], "ok": self.ok}


@dataclass(frozen=True)
class Verification:
    """The files of a folder, or one file.

    Args:
        inputs: what they were compared on: the name of a set of images, or random numbers.
        files: in the order of the run.
    """

    inputs: str
    files: tuple[FileCheck, ...]

    @property
    def miss(self) -> str | None:
        """The first promise that isn't kept, in words."""
        return next((file.miss for file in self.files if file.miss is not None), None)

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON can hold it."""
        return {"ok": self.miss is None, "inputs": self.inputs, "files": [file.to_dict() for file in self.files]}
