"""An ONNX file examined: facts, findings, and a verdict."""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir

from keras_qat.doctor.checks import CHECKS
from keras_qat.doctor.findings import Finding, Severity, merge
from keras_qat.errors import StorageError
from keras_qat.onnx import OnnxFile, read_onnx_file
from keras_qat.targets import Target, find_targets
from keras_qat.text import shortened
from keras_qat.types import OpKind


@dataclass(frozen=True)
class Counted:
    """The operations of one kind.

    Args:
        quantized: how many have quantized inputs and weights.
        total: how many there are.
    """

    quantized: int
    total: int

    def __str__(self) -> str:
        """As tables show it."""
        return f"{self.quantized} of {self.total}"


@dataclass(frozen=True)
class Summary:
    """The facts about one file.

    Args:
        producer: the tool that wrote it, as it calls itself.
        opset: version of ONNX's own operators; `None` if the file uses none of them.
        ir_version: version of the file format.
        inputs: in the form `name: float32 (batch, 224, 224, 3)`.
        outputs: in the same form.
        parameters: number of stored numbers: weights, biases and scales.
        size_bytes: size of the file, external data included.
        pairs: number of Q/DQ pairs on computed tensors.
        convolutions: how many run in integers, and how many there are.
        dense: the same of matrix products with stored weights.
        target: the target that keras-qat wrote the file for; "" if it did not.
    """

    producer: str
    opset: int | None
    ir_version: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    parameters: int
    size_bytes: int
    pairs: int
    convolutions: Counted
    dense: Counted
    target: str


@dataclass(frozen=True)
class Examination:
    """What was found in one file.

    Args:
        path: the file.
        targets: names of the targets that it was judged for.
        summary: its facts.
        findings: what is wrong with it, the worst first.
    """

    path: Path
    targets: tuple[str, ...]
    summary: Summary
    findings: tuple[Finding, ...]

    def count(self, severity: Severity) -> int:
        """The number of findings of a severity."""
        return sum(finding.severity is severity for finding in self.findings)

    @property
    def healthy(self) -> bool:
        """Whether there are no findings but notes."""
        return self.count(Severity.NOTE) == len(self.findings)

    @property
    def verdict(self) -> str:
        """The result in one line."""
        summary = self.summary
        facts = f"{summary.pairs} Q/DQ pairs, {summary.convolutions} convolutions in int8"
        if summary.dense.total:
            facts += f", {summary.dense} dense layers"
        if self.healthy:
            return f"healthy: {facts}"
        kinds = [(self.count(severity), str(severity)) for severity in Severity]
        counts = ", ".join(f"{n} {word}{'s' * (n > 1)}" for n, word in kinds if n)
        healthy_for = [target for target in self.targets if self.healthy_for(target)]
        return f"{counts}" + (f"; healthy for {' and '.join(healthy_for)}" if healthy_for else "") + f": {facts}"

    def healthy_for(self, target: str) -> bool:
        """Whether a target has no findings but notes."""
        return all(f.severity is Severity.NOTE for f in self.findings if target in f.engines)

    def to_dict(self) -> dict[str, Any]:
        """The examination as JSON can hold it."""
        return {
            "file": str(self.path),
            "targets": list(self.targets),
            "verdict": self.verdict,
            "healthy_for": [target for target in self.targets if self.healthy_for(target)],
            "summary": asdict(self.summary),
            "findings": [finding.to_dict() for finding in self.findings],
        }


def examine(path: str | Path, targets: Iterable[str | Target] = ()) -> Examination:
    """Read an ONNX file, whichever tool wrote it, and find what costs speed, size or accuracy. Nothing is run.

    Args:
        path: the file.
        targets: the targets to judge it for. If none is named, the one that keras-qat wrote the file for, or all.

    Raises:
        StorageError: If the file is missing or not an ONNX model.
        UserError: If a target is unknown.
    """
    named = find_targets(targets := tuple(targets))
    file = read_onnx_file(path)
    try:
        return _judge(file, named, chosen=bool(targets))
    except Exception as error:
        # Whatever ONNX's checker accepts, every check must stand. In other files an attribute may be of any type.
        refusal = file.refusal()
        if refusal is None:
            raise
        raise StorageError(
            f"The file isn't valid ONNX, and can't be examined: {shortened(refusal)}. Received: {str(path)!r}. "
            "Export it again; if it was copied, compare the sizes."
        ) from error


def _judge(file: OnnxFile, named: tuple[Target, ...], *, chosen: bool) -> Examination:
    """The examination for some targets, or if they were not chosen, for the one that the file was written for."""
    own = tuple(target for target in named if not chosen and target.name == file.target)
    judged = own or named
    symptoms = (
        (name, target.name, symptom)
        for name, check in CHECKS.items()
        for target in judged
        for symptom in check(file, target)
    )
    return Examination(file.path, tuple(target.name for target in judged), summarize(file), merge(symptoms))


def summarize(file: OnnxFile) -> Summary:
    """The facts about a file."""
    graph, model = file.model.graph, file.model
    tensors = [value.const_value for value in graph.initializers.values() if value.const_value is not None]
    return Summary(
        producer=" ".join(str(part) for part in (model.producer_name, model.producer_version) if part) or "unknown",
        opset=file.opset,
        ir_version=int(model.ir_version),
        inputs=_described(value for value in graph.inputs if value.name not in graph.initializers),
        outputs=_described(graph.outputs),
        parameters=sum(math.prod(tensor.shape.numpy()) for tensor in tensors),
        size_bytes=file.size_bytes + sum(tensor.nbytes for tensor in tensors if isinstance(tensor, ir.ExternalTensor)),
        pairs=file.pairs,
        convolutions=_count(file, OpKind.CONV),
        dense=_count(file, OpKind.DENSE),
        target=file.target,
    )


def _count(file: OnnxFile, kind: OpKind) -> Counted:
    operations = [op for op in file.weighted if op.kind is kind]
    return Counted(sum(op.quantized for op in operations), len(operations))


def _described(values: Iterable[ir.Value]) -> tuple[str, ...]:
    return tuple(f"{value.name}: {_type(value)} {_shape(value.shape)}" for value in values)


def _type(value: ir.Value) -> str:
    return "unknown" if value.dtype is None else {"FLOAT": "float32"}.get(value.dtype.name, value.dtype.name.lower())


def _shape(shape: Any) -> str:
    if shape is None:
        return "of unknown shape"
    sizes = [str(size if isinstance(size, int) else size.value or "?") for size in shape]
    return f"({', '.join(sizes)})"
