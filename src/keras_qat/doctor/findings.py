"""What an examination finds: frozen values."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import Enum
from typing import Any

_NAMED = 3
"""How many nodes or tensors a finding names; the rest are counted."""


class Severity(str, Enum):
    """How bad a finding is."""

    ERROR = "error"
    """The engine refuses the file, or computes something else."""
    WARNING = "warning"
    """It runs, but slower, larger or less accurate than it could."""
    NOTE = "note"
    """Good to know; nothing has to be done."""

    def __str__(self) -> str:
        """The word."""
        return self.value


@dataclass(frozen=True)
class Symptom:
    """What one check sees in a file, for one engine.

    Args:
        severity: how bad it is.
        problem: what is wrong, in a sentence without its subject's names.
        cost: what it costs.
        remedy: what to do, with the option that does it.
        where: names of all nodes or tensors that show it; empty for what concerns the whole file.
    """

    severity: Severity
    problem: str
    cost: str
    remedy: str
    where: tuple[str, ...] = ()


@dataclass(frozen=True)
class Finding:
    """One thing wrong with a file, and the engines that it hurts.

    Args:
        check: the check's name.
        severity: how bad it is.
        engines: names of the targets that it hurts.
        where: names of the first nodes or tensors.
        count: how many there are in all.
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
        """Where it is, in a few words.

        Example:
            >>> Finding("x", Severity.NOTE, ("openvino",), ("a", "b"), 5, "", "", "").place
            'a, b and 3 more'
        """
        more = self.count - len(self.where)
        return ", ".join(self.where) + (f" and {more} more" if more else "")

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "severity": str(self.severity)}


def merge(symptoms: Iterable[tuple[str, str, Symptom]]) -> tuple[Finding, ...]:
    """One finding for each symptom that several engines share; the worst first.

    Args:
        symptoms: (check, engine, symptom), in the order of the checks.

    Example:
        >>> seen = Symptom(Severity.NOTE, "it is large", "room", "none")
        >>> [found.engines for found in merge([("size", "tensorrt", seen), ("size", "openvino", seen)])]
        [('tensorrt', 'openvino')]
    """
    engines: dict[tuple[str, Symptom], list[str]] = {}
    for check, engine, symptom in symptoms:
        engines.setdefault((check, symptom), []).append(engine)
    found = [
        Finding(
            check,
            one.severity,
            tuple(names),
            one.where[:_NAMED],
            len(one.where),
            one.problem,
            one.cost,
            one.remedy,
        )
        for (check, one), names in engines.items()
    ]
    return tuple(sorted(found, key=lambda finding: list(Severity).index(finding.severity)))
