"""A file examined: facts, findings, and a verdict."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from keras_qat.doctor.checks import CHECKS
from keras_qat.doctor.engines import find_engines
from keras_qat.doctor.finding import Finding, Severity, merge
from keras_qat.doctor.onnx_file import read_onnx_file
from keras_qat.doctor.summary import Summary, summarize
from keras_qat.targets import Target


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
    file = read_onnx_file(Path(path))
    summary = summarize(file)
    own = [engine for engine in named if not targets and engine.name == summary.target]
    engines = tuple(own) or named
    seen = ((name, engine.name, one) for name, see in CHECKS.items() for engine in engines for one in see(file, engine))
    return Examination(Path(path), tuple(engine.name for engine in engines), summary, merge(seen))
