"""What verification found: a frozen value."""

from dataclasses import dataclass
from pathlib import Path

FILE = "the file"
"""The layer of a finding that belongs to no layer."""


@dataclass(frozen=True)
class Finding:
    """One place where a file is not as was planned.

    Args:
        layer: the Keras node where it shows, or `"the file"`.
        problem: what is wrong there.
    """

    layer: str
    problem: str

    def __str__(self) -> str:
        """One line for a reader."""
        return f"{self.layer}: {self.problem}"


@dataclass(frozen=True)
class FileVerification:
    """The result for one file.

    Args:
        path: the file.
        edges: how many edges of the placement it was held to.
        findings: what is wrong, the first layer of the network first; empty for a right file.
    """

    path: Path
    edges: int
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether the file is as was planned."""
        return not self.findings
