"""The results of a verification, and their table for the terminal."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table
from rich.text import Text

from keras_qat.evaluation import OutputScores
from keras_qat.types import Precision, TaskKind
from keras_qat.verify.deployed import Mismatch
from keras_qat.verify.numbers import TensorError

_NONE = "–"


@dataclass(frozen=True)
class FileCheck:
    """One file compared with what it was made from.

    Shares are from 0 to 1. `None` stands for what was not compared.

    Args:
        name: what a message calls the file.
        path: the file.
        precision: the floating-point type of whatever the file does not quantize.
        size_bytes: size of the file.
        pairs: number of activations of the file with a Q/DQ pair.
        edges: number of edges of the placement that the file was compared with; `None` without a placement.
        findings: where its structure is not as was planned, the first layer of the network first.
        tensors: the error at every quantized tensor and at the outputs; empty if there are `findings`.
        sqnr: SQNR of its outputs against the Keras model's, in dB.
        agreement: share of images on which the two give the same class.
        keras_agreement: share of images on which the quantized Keras model gives the class of the float one.
        images: number of images, or of rows of random numbers.
        miss: the first promise that the file does not keep, in words; `None` for a right file.
        held: whether anything is promised of the file.
        outputs: each output against the Keras model's, by its task; empty for a classifier with one output.
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
    outputs: tuple[OutputScores, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether the file keeps everything that is promised."""
        return self.miss is None

    @property
    def worst(self) -> TensorError | None:
        """The tensor with the largest error; of several, the one with most differing numbers."""
        return max(self.tensors, key=lambda error: (error.worst, error.differing), default=None)

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON can hold it."""
        value = {**asdict(self), "tensors": [error.to_dict() for error in self.tensors], "ok": self.ok}
        return {name: it for name, it in value.items() if it or name != "outputs"}


@dataclass(frozen=True)
class Verification:
    """The files of a folder, or one file.

    Args:
        inputs: what they were compared on: the name of a set of images, or random numbers.
        files: the results, in the order in which the run made the files.
    """

    inputs: str
    files: tuple[FileCheck, ...]

    @property
    def miss(self) -> str | None:
        """The first promise that is not kept, in words; `None` if all are."""
        return next((file.miss for file in self.files if file.miss is not None), None)

    def to_dict(self) -> dict[str, Any]:
        """The results as JSON can hold them."""
        return {"ok": self.miss is None, "inputs": self.inputs, "files": [file.to_dict() for file in self.files]}


def verification_table(verification: Verification) -> Table:
    """The table for the terminal, a row for each file, with footnotes.

    Example:
        >>> verification_table(Verification("random numbers", ())).title
        'Files against their Keras models'
    """
    notes = Text("\n".join(filter(None, _notes(verification))))
    table = Table(title="Files against their Keras models", caption=notes, caption_justify="left")
    columns = [
        pair for pair in _COLUMNS if pair[0] != _SAME_CLASS or not any(file.outputs for file in verification.files)
    ]
    table.add_column("File", overflow="fold")
    for name, _ in columns:
        table.add_column(name, justify="right", overflow="fold")
    for file in verification.files:
        table.add_row(Text(file.name), *(Text(cell(file)) for _, cell in columns))
    return table


def describe_proof(file: FileCheck, inputs: str) -> list[str]:
    """The result of comparing one file with its model, in lines."""
    worst = file.worst
    tensors = f"Tensor by tensor, {_worst(worst)}." if worst is not None else ""
    equal = "" if file.agreement is None else f", the same class on {100 * file.agreement:.1f}%"
    sqnr = (
        "no SQNR (outputs not finite, or all 0 in the model)" if file.sqnr is None else f"an SQNR of {file.sqnr:.1f} dB"
    )
    outputs = f"Outputs against the Keras model's, on {file.images} x {inputs}: {sqnr}{equal}."
    verdict = "The file computes what the model computes." if file.held and file.ok else ""
    each = f"By output: {_each(file)}." if file.outputs else ""
    return [line for line in (tensors, outputs, each, verdict) if line]


def _each(file: FileCheck) -> str:
    return "; ".join(f"{scores.output}: {_APART[scores.kind](scores)}" for scores in file.outputs)


def _equal_share(scores: OutputScores) -> str:
    share = scores.value("agreement")
    return "no class" if share is None else f"the same class on {100 * share:.2f}%"


def _distance(scores: OutputScores) -> str:
    sqnr, largest = scores.value("sqnr"), scores.value("largest_error")
    if sqnr is None or largest is None:
        return "numbers that aren't finite, or all 0 in the model"
    return f"an SQNR of {sqnr:.1f} dB, largest error {largest:.3g}"


_APART: Mapping[TaskKind, Callable[[OutputScores], str]] = {
    "classification": _equal_share,
    "segmentation": lambda scores: f"{_equal_share(scores)} of the positions",
    "regression": _distance,
}
"""How far an output is from the Keras model's."""


def _worst(error: TensorError) -> str:
    if not error.worst:
        return "all are equal"
    share = f"{100 * error.differing:.2g}% of its numbers differ"
    return f"the worst is {error.tensor!r}: {share}, by up to {error.worst:.2g} steps"


def _edges(file: FileCheck) -> str:
    if file.edges is None:
        return _NONE
    return f"{len(file.findings)} wrong" if file.findings else f"{file.edges} ok"


_SAME_CLASS = "Same class"

_COLUMNS: tuple[tuple[str, Callable[[FileCheck], str]], ...] = (
    ("Q/DQ pairs", lambda file: str(file.pairs)),
    ("Edges", _edges),
    ("Steps off", lambda file: _NONE if file.worst is None else f"{file.worst.worst:.2g}"),
    ("Numbers off", lambda file: _NONE if file.worst is None else f"{100 * file.worst.differing:.2g}%"),
    (_SAME_CLASS, lambda file: _NONE if file.agreement is None else f"{100 * file.agreement:.2f}%"),
    ("SQNR (dB)", lambda file: _NONE if file.sqnr is None else f"{file.sqnr:.1f}"),
    ("", lambda file: "ok" if file.ok else "missed"),
)


def _notes(verification: Verification) -> tuple[str, ...]:
    images = max((file.images for file in verification.files), default=0)
    worst = ", ".join(f"{file.worst.tensor} ({file.name})" for file in verification.files if file.worst is not None)
    by_output = [f"{file.name}: {_each(file)}." for file in verification.files if file.outputs]
    end_to_end = "SQNR" if by_output else f"{_SAME_CLASS}, SQNR"
    return (
        f"Compared in ONNX Runtime on {images} x {verification.inputs}. Edges: those of the placement.",
        f"Off: at the worst tensor, given the same integers before it: {worst}." if worst else "",
        f"{end_to_end}: end to end, where two right engines drift apart (docs/architecture.md).",
        *by_output,
    )
