"""`keras-qat diff-ranges`: how the ranges of two calibrations differ."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from keras_qat.cli.options import AtLeastOne, Json, require_all
from keras_qat.cli.show import show
from keras_qat.storage import read_text

if TYPE_CHECKING:
    from keras_qat.calibration.ranges_diff import RangesDiff


def diff_ranges_command(
    before: Path,
    after: Path,
    /,
    *,
    worst: Annotated[int, AtLeastOne] = 20,
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Compare two files of ranges tensor by tensor; print a table, the largest ratio first.

    Examples:
        keras-qat diff-ranges runs/mse/ranges.json runs/percentile/ranges.json --worst 5

    Args:
        before: The ranges.json of a run.
        after: That of another run, as with other images or another method.
        worst: How many tensors to show in the table.
        as_json: Print JSON with all tensors instead of the table.
    """
    require_all((read_text, before), (read_text, after))
    from keras_qat.calibration.ranges import Ranges

    found = Ranges.load(before).diff(Ranges.load(after))
    show(lambda: found.describe(worst) + "\n", _record(found), as_json=as_json)


def _record(found: "RangesDiff") -> dict[str, Any]:
    """The difference as JSON can hold it, the largest first."""
    changes = [
        {
            "tensor": change.tensor,
            "before": {"amax": change.before.amax, "method": change.before.method},
            "after": {"amax": change.after.amax, "method": change.after.method},
            "ratio": change.ratio,
        }
        for change in found.changes
    ]
    return {"changes": changes, "only_before": list(found.only_before), "only_after": list(found.only_after)}
