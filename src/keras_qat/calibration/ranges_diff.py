"""How two calibrations of a model differ, tensor by tensor, the largest difference first."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from keras_qat.types import TensorRange


@dataclass(frozen=True)
class RangeChange:
    """One tensor that both have.

    Args:
        tensor: its name.
        before: its range in the first.
        after: its range in the second.
    """

    tensor: str
    before: TensorRange
    after: TensorRange

    @property
    def ratio(self) -> float:
        """Second amax over the first: 1 if both are 0, infinite if only the first is."""
        if self.before.amax == self.after.amax:
            return 1.0
        return self.after.amax / self.before.amax if self.before.amax else math.inf

    @property
    def distance(self) -> float:
        """|log ratio|: twice and half are equally far; infinite if one range is 0."""
        return abs(math.log(self.ratio)) if self.ratio else math.inf


@dataclass(frozen=True)
class RangesDiff:
    """What differs between two sets of ranges; `str()` is the whole table.

    Args:
        only_before: tensors that only the first has, in its order.
        only_after: tensors that only the second has, in its order.
        changes: the tensors that both have, the largest |log ratio| of amax first.
    """

    only_before: tuple[str, ...]
    only_after: tuple[str, ...]
    changes: tuple[RangeChange, ...]

    def __str__(self) -> str:
        """The whole table."""
        return self.describe()

    def describe(self, worst: int | None = None) -> str:
        """A Markdown table of the tensors that both have, and a line for those that only one has.

        Args:
            worst: how many rows; all if not given.
        """
        rows = [
            f"| {c.tensor} | {c.before.amax:.4g} | {c.after.amax:.4g} | {c.ratio:.4g} | {_methods(c)} |"
            for c in self.changes[:worst]
        ]
        left_out = len(self.changes) - len(rows)
        lines = ["| tensor | amax before | amax after | ratio | method |", "| --- | --- | --- | --- | --- |", *rows]
        notes = [
            f"{left_out} more tensors differ less." if left_out else "",
            _only("before", self.only_before),
            _only("after", self.only_after),
        ]
        return "\n".join([*lines, *(f"\n{note}" for note in notes if note)])


def diff_ranges(before: Mapping[str, TensorRange], after: Mapping[str, TensorRange]) -> RangesDiff:
    """Compare two sets of ranges.

    Args:
        before: from `calibrate`.
        after: from another `calibrate`, as of other images or another method.

    Example:
        >>> one, two = ({"relu": TensorRange(amax, "mse", 8)} for amax in (2.0, 3.0))
        >>> diff_ranges(one, two).changes[0].ratio
        1.5
    """
    changes = [RangeChange(name, before[name], after[name]) for name in before if name in after]
    return RangesDiff(
        tuple(name for name in before if name not in after),
        tuple(name for name in after if name not in before),
        tuple(sorted(changes, key=lambda change: -change.distance)),
    )


def _methods(change: RangeChange) -> str:
    return " → ".join(dict.fromkeys((change.before.method, change.after.method)))


def _only(where: str, names: tuple[str, ...]) -> str:
    return f"Only {where}: {', '.join(names)}." if names else ""
