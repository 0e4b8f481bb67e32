"""How far one tensor of a file is from its simulation."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

_NOT_FINITE = "the file gives numbers that aren't finite, or that aren't numbers"
"""Why JSON, which has no infinity, has null for an error."""


@dataclass(frozen=True)
class TensorError:
    """How far one tensor of the file is from the simulation, when all that it is computed from is equal.

    Args:
        tensor: name of the FakeQuantize layer, or of the model's output.
        differing: share of its numbers that are half a step or more away, 0 to 1.
        worst: the largest error, in steps. An output, which no step is defined for, counts in 1/127 of its largest
            magnitude. Infinite where the file's number isn't finite.
    """

    tensor: str
    differing: float
    worst: float

    def to_dict(self) -> dict[str, Any]:
        """The error as JSON can hold it: an infinite one is null, with the reason.

        Example:
            >>> TensorError("relu", 1.0, float("inf")).to_dict()["worst"] is None
            True
        """
        if math.isfinite(self.worst):
            return asdict(self)
        return {**asdict(self), "worst": None, "reason": _NOT_FINITE}

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> "TensorError":
        """Read what `to_dict` made.

        Raises:
            KeyError: a field is missing.
        """
        worst = math.inf if value["worst"] is None else value["worst"]
        return cls(value["tensor"], value["differing"], worst)
