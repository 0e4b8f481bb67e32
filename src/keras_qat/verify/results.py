"""What a verification found: frozen values.

A verification on the terminal: a row for each file.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table
from rich.text import Text

from keras_qat.types import Precision
from keras_qat.verify.deployed import Mismatch
from keras_qat.verify.numbers import TensorError


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
    findings: tuple[Mismatch, ...]
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


_NONE = "–"


def verification_table(verification: Verification) -> Table:
    """The table for the terminal, with its footnotes.

    Example:
        >>> verification_table(Verification("random numbers", ())).title
        'Files against their Keras models'
    """
    notes = Text("\n".join(filter(None, _notes(verification))))
    table = Table(title="Files against their Keras models", caption=notes, caption_justify="left")
    table.add_column("File", overflow="fold")
    for name, _ in _COLUMNS:
        table.add_column(name, justify="right")
    for file in verification.files:
        table.add_row(Text(file.name), *(Text(cell(file)) for _, cell in _COLUMNS))
    return table


def describe_proof(file: FileCheck, inputs: str) -> list[str]:
    """What came of comparing one file with its model, in lines."""
    worst = file.worst
    tensors = f"Tensor by tensor, {_worst(worst)}." if worst is not None else ""
    equal = "" if file.agreement is None else f", the same class on {100 * file.agreement:.1f}%"
    sqnr = (
        "no SQNR (outputs not finite, or all 0 in the model)" if file.sqnr is None else f"an SQNR of {file.sqnr:.1f} dB"
    )
    outputs = f"Outputs against the Keras model's, on {file.images} x {inputs}: {sqnr}{equal}."
    verdict = "The file computes what the model computes." if file.held and file.ok else ""
    return [line for line in (tensors, outputs, verdict) if line]


def _worst(error: TensorError) -> str:
    if not error.worst:
        return "all are equal"
    share = f"{100 * error.differing:.2g}% of its numbers differ"
    return f"the worst is {error.tensor!r}: {share}, by up to {error.worst:.2g} steps"


def _edges(file: FileCheck) -> str:
    if file.edges is None:
        return _NONE
    return f"{len(file.findings)} wrong" if file.findings else f"{file.edges} ok"


_COLUMNS: tuple[tuple[str, Callable[[FileCheck], str]], ...] = (
    ("Q/DQ pairs", lambda file: str(file.pairs)),
    ("Edges", _edges),
    ("Steps off", lambda file: _NONE if file.worst is None else f"{file.worst.worst:.2g}"),
    ("Numbers off", lambda file: _NONE if file.worst is None else f"{100 * file.worst.differing:.2g}%"),
    ("Same class", lambda file: _NONE if file.agreement is None else f"{100 * file.agreement:.2f}%"),
    ("SQNR (dB)", lambda file: _NONE if file.sqnr is None else f"{file.sqnr:.1f}"),
    ("", lambda file: "ok" if file.ok else "missed"),
)


def _notes(verification: Verification) -> tuple[str, ...]:
    images = max((file.images for file in verification.files), default=0)
    worst = ", ".join(f"{file.worst.tensor} ({file.name})" for file in verification.files if file.worst is not None)
    return (
        f"Compared in ONNX Runtime on {images} x {verification.inputs}. Edges: those of the placement.",
        f"Off: at the worst tensor, given the same integers before it: {worst}." if worst else "",
        "Same class, SQNR: end to end, where two right engines drift apart (docs/architecture.md).",
    )
