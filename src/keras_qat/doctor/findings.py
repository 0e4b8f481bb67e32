"""What an examination finds, as frozen values."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from keras_qat.files import to_json_value

_NAMED = 3
"""The number of nodes or tensors that a finding names; the rest are counted."""


class Severity(str, Enum):
    """How bad a finding is, the worst first."""

    ERROR = "error"
    """The engine refuses the file, or computes something else."""
    WARNING = "warning"
    """The file runs, but slower, larger or less accurate than it could."""
    NOTE = "note"
    """Good to know; nothing has to be done."""

    def __str__(self) -> str:
        """The word, as tables show it."""
        return self.value


@dataclass(frozen=True)
class Symptom:
    """What one check sees in a file for one target, or on a machine.

    Args:
        severity: how bad it is.
        problem: what is wrong, in words that name no nodes.
        cost: what it costs.
        remedy: what to do, with the option that does it.
        where: names of all nodes or tensors that show it; empty if it concerns the whole file.
    """

    severity: Severity
    problem: str
    cost: str
    remedy: str
    where: tuple[str, ...] = ()


@dataclass(frozen=True)
class Finding:
    """A symptom of a file, and all engines that it hurts.

    Args:
        check: the check's name.
        severity: how bad it is.
        engines: names of the targets that it hurts.
        where: names of the first nodes or tensors that show it.
        count: number of all that show it.
        problem: what is wrong.
        cost: what it costs.
        remedy: what to do.
    """

    check: str
    severity: Severity
    engines: tuple[str, ...]
    where: tuple[str, ...]
    count: int
    problem: str
    cost: str
    remedy: str

    @property
    def place(self) -> str:
        """The names, and how many more there are.

        Example:
            >>> Finding("x", Severity.NOTE, ("openvino",), ("a", "b"), 5, "", "", "").place
            'a, b and 3 more'
        """
        more = self.count - len(self.where)
        return ", ".join(self.where) + (f" and {more} more" if more else "")

    def to_dict(self) -> dict[str, Any]:
        """The finding as JSON can hold it."""
        return dict(to_json_value(self))


def merge(symptoms: Iterable[tuple[str, str, Symptom]]) -> tuple[Finding, ...]:
    """One finding for each symptom that several targets share.

    Args:
        symptoms: (check, target, symptom), in the order of the checks.

    Returns:
        The findings, the worst first, those of one severity in the order of the checks.

    Example:
        >>> seen = Symptom(Severity.NOTE, "it is large", "room", "none")
        >>> [finding.engines for finding in merge([("size", "tensorrt", seen), ("size", "openvino", seen)])]
        [('tensorrt', 'openvino')]
    """
    targets: dict[tuple[str, Symptom], list[str]] = {}
    for check, target, symptom in symptoms:
        targets.setdefault((check, symptom), []).append(target)
    findings = [
        Finding(
            check=check,
            severity=symptom.severity,
            engines=tuple(names),
            where=symptom.where[:_NAMED],
            count=len(symptom.where),
            problem=symptom.problem,
            cost=symptom.cost,
            remedy=symptom.remedy,
        )
        for (check, symptom), names in targets.items()
    ]
    return tuple(sorted(findings, key=lambda finding: list(Severity).index(finding.severity)))
