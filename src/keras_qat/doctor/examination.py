"""What a file is: the facts that its findings are read by.

A file examined: facts, findings, and a verdict.
"""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir

from keras_qat.doctor.checks import CHECKS
from keras_qat.doctor.findings import Finding, Severity, merge
from keras_qat.onnx import OnnxFile, read_onnx_file
from keras_qat.targets import Target, find_engines
from keras_qat.types import OpKind


@dataclass(frozen=True)
class Counted:
    """Operations of a kind.

    Args:
        quantized: how many have quantized inputs and weights.
        total: how many there are.
    """

    quantized: int
    total: int

    def __str__(self) -> str:
        """As it reads in a table."""
        return f"{self.quantized} of {self.total}"


@dataclass(frozen=True)
class Summary:
    """Facts of one file.

    Args:
        producer: the tool that wrote it, as it calls itself.
        opset: of ONNX's own operators; `None` if it uses none.
        ir_version: of the file format.
        inputs: as `name: float32 (batch, 224, 224, 3)`.
        outputs: likewise.
        parameters: how many numbers are stored in weights, biases and scales.
        size_bytes: of the file, external data included.
        pairs: Q/DQ pairs on tensors that are computed.
        convolutions: in integers and in all.
        dense: matrix products with stored weights, likewise.
        target: what keras-qat wrote it for, if it did; else "".
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


def summarize(file: OnnxFile) -> Summary:
    """Count what a file holds."""
    graph, model = file.model.graph, file.model
    tensors = [value.const_value for value in graph.initializers.values() if value.const_value is not None]
    outside = sum(tensor.nbytes for tensor in tensors if isinstance(tensor, ir.ExternalTensor))
    return Summary(
        producer=" ".join(filter(None, (model.producer_name, model.producer_version))) or "unknown",
        opset=file.opset,
        ir_version=int(model.ir_version),
        inputs=_described(value for value in graph.inputs if value.name not in graph.initializers),
        outputs=_described(graph.outputs),
        parameters=sum(math.prod(tensor.shape.numpy()) for tensor in tensors),
        size_bytes=file.size_bytes + outside,
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


@dataclass(frozen=True)
class Examination:
    """What was found in one file.

    Args:
        path: the file.
        targets: the engines that it was judged for.
        summary: what it is.
        findings: what is wrong with it, the worst first.
    """

    path: Path
    targets: tuple[str, ...]
    summary: Summary
    findings: tuple[Finding, ...]

    def count(self, severity: Severity) -> int:
        """How many findings are that bad."""
        return sum(finding.severity is severity for finding in self.findings)

    @property
    def healthy(self) -> bool:
        """Whether there is nothing but notes."""
        return self.count(Severity.NOTE) == len(self.findings)

    @property
    def verdict(self) -> str:
        """One line for a reader."""
        summary = self.summary
        facts = f"{summary.pairs} Q/DQ pairs, {summary.convolutions} convolutions in int8"
        if summary.dense.total:
            facts += f", {summary.dense} dense layers"
        if self.healthy:
            return f"healthy: {facts}"
        kinds = [(self.count(severity), str(severity)) for severity in Severity]
        counts = ", ".join(f"{n} {word}{'s' * (n > 1)}" for n, word in kinds if n)
        well = [target for target in self.targets if self.healthy_for(target)]
        return f"{counts}" + (f"; healthy for {' and '.join(well)}" if well else "") + f": {facts}"

    def healthy_for(self, target: str) -> bool:
        """Whether nothing but notes concerns a target."""
        return all(f.severity is Severity.NOTE for f in self.findings if target in f.engines)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "file": str(self.path),
            "targets": list(self.targets),
            "verdict": self.verdict,
            "healthy_for": [target for target in self.targets if self.healthy_for(target)],
            "summary": asdict(self.summary),
            "findings": [finding.to_dict() for finding in self.findings],
        }


def examine(path: str | Path, targets: Iterable[str | Target] = ()) -> Examination:
    """Read an ONNX file, of whatever tool, and say what in it costs speed, size or accuracy; nothing is run.

    Args:
        path: the file.
        targets: to judge it for; if none is named, the one that keras-qat wrote the file for, or all.

    Raises:
        StorageError: the file is missing, or no ONNX model.
        UserError: a target is unknown.
    """
    named = find_engines(targets := tuple(targets))
    file = read_onnx_file(path)
    summary = summarize(file)
    own = [engine for engine in named if not targets and engine.name == summary.target]
    engines = tuple(own) or named
    seen = ((name, engine.name, one) for name, see in CHECKS.items() for engine in engines for one in see(file, engine))
    return Examination(Path(path), tuple(engine.name for engine in engines), summary, merge(seen))
